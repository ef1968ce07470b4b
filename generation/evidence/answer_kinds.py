"""Says which kind of answer an English question asks for, and whether a sentence holds one.

"How much does it cost?" asks for an amount of money, and a sentence without one is seldom the
answer, however near it is. The judge reads the same words, but it confuses an opening day with an
opening hour; both are signals, and their weights are learned.
"""

from __future__ import annotations

import re
from functools import lru_cache

_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    "|hundreds?|thousands?|millions?|billions?|half|dozens?|once|twice|both|third|thirds|quarter"
    "|tenth|no|none|single|several|couple|pair"
)
# Repetitions are bounded, so that a sentence of digits or of capitals costs no more than another.
_NUMBER = rf"(?:(?<![\d.,])\d[\d.,]{{0,24}}|\b(?:{_WORDS})\b)"
_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
_TIMES = (
    "seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?|centur(?:y|ies)|nights?|seasons?"
    "|summers?|winters?|generations?|lifetime"
)
_LENGTHS = (
    "millimet(?:er|re)s?|centimet(?:er|re)s?|met(?:er|re)s?|kilomet(?:er|re)s?|miles?|feet|foot"
    "|inch(?:es)?|yards?|stor(?:ey|y|ies)s?|floors?|mm|cm|m|km|ft|in|mi|hectares?|acres?|square"
    "|litres?|liters?|light[- ]years?|fathoms?|pages?|lines?"
)
_WEIGHTS = "grams?|kilograms?|kilos?|tons?|tonnes?|pounds?|ounces?|stone|g|kg|lbs?|oz|t|mg"
_MONEY = "dollars?|pounds?|euros?|cents?|pence|francs?|yen|crowns?|kron[ae]r?|rupees?|marks?|usd"

# A capitalised word inside a sentence, or two in a row.
_NAME = r"(?-i:(?<=[a-z,;:(\"'\u2019] )[A-Z][\w.'-]{1,40}|\b[A-Z][\w'-]{1,40} [A-Z][\w'-]{1,40})"


def _after_number(units: str) -> str:
    """Returns the pattern of a number with one of some units, up to two words apart."""
    return rf"{_NUMBER}(?:[ -]\w{{1,20}}){{0,2}}?[ -]?(?:{units})\b"


# The question's pattern and the answer's, by kind; the first that fits counts.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "clock",
        r"\bwhat time\b(?! period)|\bopening (?:hours|times)\b",
        r"\d ?(?:am|pm|a\.m|p\.m|o'clock|h)\b|\d:\d\d|\b(?:noon|midnight|dawn|dusk|at night)\b"
        rf"|\bin the (?:morning|afternoon|evening)\b|\b(?:at|until|from) (?:{_WORDS})\b",
    ),
    (
        "money",
        r"\bhow much\b.*\b(?:costs?|charged?|pa(?:y|id)|earn(?:ed)?|spen[dt]|money|worth|sold)\b"
        r"|\bwhat (?:does|do|did|would) .*\bcosts?\b"
        r"|\bwhat (?:is|was|are|were) the (?:\w+ ){0,2}"
        r"(?:price|costs?|fees?|fine|toll|budget|salary|turnover|revenue|profit)\b"
        r"|\bhow (?:expensive|cheap)\b",
        rf"[$£€¥]|\b(?:free|nothing)\b|{_after_number(_MONEY)}|\d\.\d\d\b",
    ),
    ("age", r"\bhow old\b|\bwhat age\b", rf"{_NUMBER}"),
    (
        "duration or length",
        r"\bhow long\b|\bwhat (?:is|was) the (?:\w+ )?(?:length|duration)\b",
        rf"{_after_number(f'{_TIMES}|{_LENGTHS}')}|\b(?:a|an|whole|entire|all) (?:{_TIMES})\b"
        r"|\d:\d\d|\b(?:until|since|forever|always|permanent\w*)\b",
    ),
    (
        "size",
        r"\bhow (?:high|tall|deep|wide|far|thick|broad|large|big|small)\b"
        r"|\bwhat (?:is|was) the (?:\w+ )?(?:height|width|depth|diameter|area|size|distance)\b",
        rf"{_after_number(_LENGTHS)}|\b(?:{_NUMBER})",
    ),
    (
        "weight",
        r"\bhow (?:much|heavy)\b.*\b(?:weigh\w*|heavy)\b|\bhow heavy\b|\bwhat .*\bweight\b",
        _after_number(_WEIGHTS),
    ),
    (
        "temperature",
        r"\bhow (?:hot|cold|warm)\b|\bwhat temperature\b",
        r"\bdegrees?\b|°|\d ?[CF]\b|\b(?:room temperature|boiling|freezing)\b",
    ),
    (
        "frequency",
        r"\bhow (?:often|frequently)\b",
        rf"\b(?:every|each|per|daily|weekly|monthly|yearly|annual\w*|times|once|twice|always|never"
        rf"|(?:a|an) (?:{_TIMES}))\b",
    ),
    (
        "number",
        r"\bhow (?:many|much)\b|\bwhat (?:percent\w*|proportion|share|fraction|number)\b"
        r"|\bwhat (?:is|was) the (?:\w+ )?(?:population|number|percentage|speed|rate)\b"
        r"|\bhow (?:fast|loud|bright|strong)\b",
        rf"{_NUMBER}|\b(?:all|every|most|many|few)\b",
    ),
    (
        "date",
        r"\bwhen (?:did|do|does|is|are|was|were|will|may|must|can|should|has|have)\b(?!.*, wh)"
        r"|\bwhen\?$|\b(?:what|which) (?:\w+ )?(?:year|date|day|month|century|decade|season)\b",
        rf"\b\d{{3,4}}s?\b|\b(?:{_MONTHS})\b|\bcentur(?:y|ies)\b|\b(?:mon|tues|wednes|thurs|fri"
        r"|satur|sun)days?\b|\b(?:spring|summer|autumn|fall|winter|today|night|midnight|noon|ago"
        r"|evening|morning|weekends?|weekdays?|after|before|until|since|during|while|once)\b",
    ),
    (
        "person",
        r"\bwho(?:m|se)?\b|\bname of the (?:\w+ )?(?:person|man|woman|owner|author|actor)\b",
        rf"{_NAME}|\b(?:mother|father|parents|brothers?|sisters?|sons?|daughters?|uncle|aunt|wife"
        r"|husband|friends?|famil(?:y|ies)|company|foundation|council|team|army|band|group|people|men|women"
        r"|king|queen|president|owners?|members|workers)\b|\bby (?:an?|the|his|her|its|their) ",
    ),
    (
        "place",
        r"\bwhere (?:did|do|does|is|are|was|were|will|can|may|should|has|have)\b|\bwhere\?$"
        r"|\b(?:what|which) (?:\w+ )?(?:country|countries|city|cities|town|state|village|place)\b",
        rf"{_NAME}|\b(?:in|on|at|near|under|to|from|between|along) (?:an?|the|its|their|his|her) ",
    ),
)
_METHOD = re.compile(
    r"\bhow (?:do|can|could|should|would|may|might|must|shall) (?:i|you|we|one|they)\b"
    r"|\bhow to \w|\b(?:ways?|steps) to \w"
    r"|\bwhat (?:must|should|do|can) (?:i|you|we|one) do to\b",
    re.IGNORECASE,
)
_SPEAKER = frozenset({"i", "i'm", "i'd", "i've", "i'll"})
_WORD = re.compile(r"\w+(?:[.,'\u2019-]\w+)*")
_COMPILED = tuple(
    (name, re.compile(asked, re.IGNORECASE), re.compile(answer, re.IGNORECASE))
    for name, asked, answer in _KINDS
)


def asks_method(question: str) -> bool:
    """Returns whether a question asks how to do something: "How do I change the lamp?"."""
    return _METHOD.search(question) is not None


@lru_cache(64)
def asked_kind(question: str) -> str:
    """Returns the kind of answer that a question asks for; empty if it is none of the known ones.

    Args:
        question: Text of the question.
    """
    # "How do I measure how long it takes?" does not ask for a length.
    if asks_method(question):
        return ""
    return next((name for name, asked, _ in _COMPILED if asked.search(question)), "")


def answer_pattern(question: str) -> re.Pattern[str] | None:
    """Returns the pattern of what a question asks for; None if the kind is not known."""
    kind = asked_kind(question)
    return next((answer for name, _, answer in _COMPILED if name == kind), None)


def holds_kind(question: str, sentence: str) -> float:
    """Returns 1.0 if a sentence holds an answer of the kind that is asked for, otherwise 0.0.

    What the question itself says does not count: "1936" is no answer to "Who won in 1936?".

    Returns: NaN if the kind is not known.
    """
    answer = answer_pattern(question)
    if answer is None:
        return float("nan")
    said = question.casefold()
    held = (found.group().casefold().strip(" .,'-") for found in answer.finditer(sentence))
    return float(any(one not in said for one in held))


def asked_names(question: str) -> frozenset[str]:
    """Returns the names and numbers of a question, in lower case.

    A name is a word with a capital letter that does not begin the question, or a word with a digit;
    "I" is none.
    """
    words = _WORD.findall(question)
    named = (
        _without_possessive(word)
        for at, word in enumerate(words)
        if any(sign.isdigit() for sign in word) or (at and word[0].isupper())
    )
    return frozenset(named) - _SPEAKER


def lacks_names(names: frozenset[str], text: str) -> float:
    """Returns the share of names and numbers, 0..1, that a text lacks; 0.0 if there are none.

    Args:
        names: See `asked_names`.
        text: A text in any case.
    """
    if not names:
        return 0.0
    held = {_without_possessive(word) for word in _WORD.findall(text)}
    return len(names - held) / len(names)


def _without_possessive(word: str) -> str:
    return word.casefold().replace("\u2019", "'").removesuffix("'s")
