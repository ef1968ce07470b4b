"""Extracts numbers with units, and dates, in a normalised form for comparison."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve".split(), 1
    )
} | {"zero": "0", "twenty": "20", "thirty": "30", "fifty": "50", "hundred": "100", "half": "0.5"}
_FRACTIONS = {"½": "0.5", "¼": "0.25", "¾": "0.75", "⅓": "1/3", "⅔": "2/3", "⅛": "0.125"}
_UNITS = {
    unit: names[0]
    for names in (
        ("%", "percent", "per cent", "pct"),
        ("ns", "nanosecond", "nanoseconds"),
        ("µs", "us", "μs", "microsecond", "microseconds"),
        ("ms", "msec", "millisecond", "milliseconds"),
        ("s", "sec", "secs", "second", "seconds"),
        ("min", "mins", "minute", "minutes"),
        ("h", "hr", "hrs", "hour", "hours"),
        ("day", "days"),
        ("week", "weeks", "wk", "wks"),
        ("month", "months"),
        ("year", "years", "yr", "yrs"),
        ("kg", "kilogram", "kilograms", "kilogramme", "kilogrammes", "kilo", "kilos"),
        ("g", "gram", "grams", "gramme", "grammes"),
        ("mg", "milligram", "milligrams", "milligramme", "milligrammes"),
        ("µg", "ug", "μg", "mcg", "microgram", "micrograms"),
        ("t", "tonne", "tonnes"),
        ("lb", "lbs", "pound", "pounds"),
        ("oz", "ounce", "ounces"),
        ("km", "kilometre", "kilometres", "kilometer", "kilometers"),
        ("m", "metre", "metres", "meter", "meters"),
        ("cm", "centimetre", "centimetres", "centimeter", "centimeters"),
        ("mm", "millimetre", "millimetres", "millimeter", "millimeters"),
        ("µm", "um", "μm", "micrometre", "micrometres", "micrometer", "micrometers", "micron"),
        ("nm", "nanometre", "nanometres", "nanometer", "nanometers"),
        ("ft", "foot", "feet"),
        ("inch", "inches"),
        ("mile", "miles"),
        ("l", "L", "litre", "litres", "liter", "liters"),
        ("ml", "mL", "millilitre", "millilitres", "milliliter", "milliliters"),
        ("dl", "dL"),
        ("°C", "℃", "degrees celsius", "degree celsius", "celsius"),
        ("°F", "℉", "degrees fahrenheit", "fahrenheit"),
        ("°", "degree", "degrees"),
        ("K", "kelvin"),
        ("bit", "bits"),
        ("B", "byte", "bytes"),
        ("kB", "KB", "kilobyte", "kilobytes"),
        ("MB", "megabyte", "megabytes"),
        ("GB", "gigabyte", "gigabytes"),
        ("TB", "terabyte", "terabytes"),
        ("KiB", "kibibyte", "kibibytes"),
        ("MiB", "mebibyte", "mebibytes"),
        ("GiB", "gibibyte", "gibibytes"),
        ("Hz", "hertz"),
        ("kHz",),
        ("MHz",),
        ("GHz",),
        ("V", "volt", "volts"),
        ("W", "watt", "watts"),
        ("kW", "kilowatt", "kilowatts"),
        ("kWh",),
        ("Pa", "pascal", "pascals"),
        ("mol", "mole", "moles"),
        ("USD", "$", "dollar", "dollars"),
        ("EUR", "€", "euro", "euros"),
        ("GBP", "£"),
        ("px", "pixel", "pixels"),
        *((word,) for word in ("thousand", "million", "billion")),
    )
    for unit in names
}
# Symbols keep their case (MB, mB); words do not.
_BY_WORD = {unit.lower(): name for unit, name in _UNITS.items() if len(unit) > 3}
_MONTHS = "january february march april may june july august september october november december"
_MONTH = {name[:length]: at for at, name in enumerate(_MONTHS.split(), 1) for length in (3, 20)}
_MONTH |= {"sept": 9}
MONTHS = frozenset(_MONTH)

_NAME = "|".join(sorted(_MONTH, key=len, reverse=True))
_DAY = r"(?P<day{0}>\d{{1,2}})(?:st|nd|rd|th)?"
_DATE = re.compile(
    rf"""\b(?P<y1>\d{{4}})-(?P<m1>\d{{2}})-(?P<day1>\d{{2}})\b
    | \b(?P<m2>{_NAME})\.?\s+{_DAY.format(2)}(?:(?:\s*,)?\s+(?P<y2>\d{{4}}))?\b
    | \b{_DAY.format(3)}\.?\s+(?:of\s+)?(?P<m3>{_NAME})\b\.?(?:,?\s+(?P<y3>\d{{4}})\b)?
    | \b(?P<m4>{_NAME})\.?,?\s+(?:of\s+)?(?P<y4>\d{{4}})\b""",
    re.IGNORECASE | re.VERBOSE,
)
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_WORD_UNIT = "|".join(re.escape(unit) for unit in sorted(_BY_WORD, key=len, reverse=True))
_SPELLED = "|".join(_WORDS)
_PART = "[,'\u2009\u202f\u00a0 ]"
_TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_NUMBER = re.compile(
    # "p53", "B12" and "utf-8" are names, not numbers.
    rf"""(?<!\w)(?<![A-Za-z]-)(?<!\d\.)
    (?:(?P<currency>[$€£])\s?)?
    (?P<sign>(?<![\w)\]])[-−+])?
    (?P<number>
        \d+(?:[.:]\d+){{2,}} | \d{{1,2}}:\d{{2}}             # a version, a time of day
      | \d{{1,3}}(?:{_PART}\d{{3}})+(?:\.\d+)?(?!\d)
      | \d+/\d+(?![/\d])
      | \d*[.,·]?\d+(?:[eE][-+]?\d{{1,2}}(?!\d))?
      | [½¼¾⅓⅔⅛]
      | \b(?i:{_SPELLED})\b
    )
    (?P<unit>[-\s]?(?i:{_WORD_UNIT})(?!\w) | \s?(?:{_UNIT})(?!\w))?
    # In a range or a list, the unit follows the last number.
    (?P<joined>(?:\s?[-–—/]\s?|\s(?:to|and|or)\s)(?=[$€£]?\d|(?i:{_SPELLED})\b))?""",
    re.VERBOSE,
)


class Quantity(NamedTuple):
    """A normalised number and its unit; the unit is empty if there is none."""

    number: str
    unit: str


class Date(NamedTuple):
    """A date; parts that the text does not give are 0."""

    year: int
    month: int
    day: int

    def within(self, other: Date) -> bool:
        """Returns whether another date agrees with all given parts of this one."""
        return all(mine in (0, its) for mine, its in zip(self, other, strict=True))


class Quantities(NamedTuple):
    """The numbers and dates of a text, each with its wording in the text."""

    quantities: dict[Quantity, str]
    dates: dict[Date, str]


def extract_quantities(text: str) -> Quantities:
    """Extracts the numbers, units and dates of an English text.

    Thousands are separated by a comma, an apostrophe or a narrow space; any other comma is a
    decimal point, as is a raised dot. In a range or a list ("3 to 5 minutes"), each number has the
    unit of the last. "one" counts only with a unit, because it is usually not a number. Versions
    and times of day are compared as written.
    """
    dates: dict[Date, str] = {}
    rest = _DATE.sub(lambda match: _keep(match, dates), text)
    found: dict[Quantity, str] = {}
    waiting: list[tuple[str, str]] = []
    for match in _NUMBER.finditer(rest):
        unit = _unit(match["currency"] or match["unit"] or "")
        times = _TIMES.get((match["unit"] or "").strip().lower(), 1)
        number = _number(match["number"], match["sign"] or "", times)
        words = rest[match.start() : match.start("joined") if match["joined"] else match.end()]
        waiting.append((number, words.strip()))
        if match["joined"] and not unit:
            continue
        for value, words in waiting:
            if unit or words.lower() != "one":
                found[Quantity(value, "" if unit in _TIMES else unit)] = words
        waiting = []
    return Quantities(found, dates)


def _keep(match: re.Match[str], dates: dict[Date, str]) -> str:
    given = match.groupdict()

    def part(name: str) -> str:
        return next((given[key] for key in given if key.startswith(name) and given[key]), "")

    month = part("m")
    number = int(month) if month.isdecimal() else _MONTH[month.lower()]
    dates[Date(int(part("y") or 0), number, int(part("day") or 0))] = match.group()
    # The separator keeps numbers before and after the date apart.
    return " ; "


def _unit(text: str) -> str:
    text = text.strip(" -\t\n\u00a0\u2009\u202f")
    return _UNITS.get(text) or _BY_WORD.get(" ".join(text.lower().split()), "")


def _number(text: str, sign: str, times: int) -> str:
    """Returns a normalised number: no separators, plus signs or trailing zeros."""
    text = _WORDS.get(text.lower()) or _FRACTIONS.get(text) or text
    if ":" in text or text.count(".") > 1:
        return text
    if re.fullmatch(rf"\d{{1,3}}(?:{_PART}\d{{3}})+(?:\.\d+)?", text):
        text = re.sub(_PART, "", text)
    top, _, bottom = re.sub("[,·]", ".", text).partition("/")
    try:
        value = Decimal(top) / Decimal(bottom or 1) * times
    except ArithmeticError:
        return text
    return f"{'-' if sign in ('-', '−') else ''}{value.normalize():f}"
