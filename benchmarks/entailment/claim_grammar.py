"""Statements of our own, in pairs that support or contradict each other.

A fact is the effect of one thing on another: more, less, or none. Each is told in many ways, by
direct effect, by lack of the cause, by comparison of groups, and as risk. Two tellings of one fact
support each other; tellings of different effects contradict. Every telling stands on both sides of
both kinds of pair, so that no word alone gives the label away.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from benchmarks.entailment import tellings, words

_Ways: TypeAlias = tuple[str, ...]

SUPPORTED, CONTRADICTED, SILENT = range(3)
_NUMBERS = re.compile(r"\{(?:x|y|above|below|big|small|year|later)\}")
_NAME_FORMS = ("{0}{1}", "{0}-{1}", "{0}", "p{1}", "miR-{1}", "{0} {1}", "{0}{1}a")
_OF_NAMES = ("expression", "levels", "activity", "signalling", "secretion")


def listed(text: str) -> _Ways:
    """Returns the entries of a text that are separated by "|"."""
    return tuple(" ".join(one.split()) for one in text.split("|"))


_POOLS = {
    "A": listed(words.CAUSES),
    "B": listed(words.QUANTITIES),
    "D": listed(words.ILLS),
    "G": listed(words.GROUPS),
    "P": listed(words.TREATED),
}
_LACK, _GAIN, _LEADS, _TAILS = map(listed, (words.LACK, words.GAIN, words.LEADS, words.TAILS))
_EFFECT, _NO_EFFECT = listed(tellings.EFFECT), listed(tellings.NO_EFFECT)
_NOT_SO, _SOME_EFFECT = listed(tellings.NOT_SO), listed(tellings.SOME_EFFECT)
_RISK_UP, _RISK_DOWN = listed(tellings.RISK_UP), listed(tellings.RISK_DOWN)
_RISK_NONE, _RISK_SOME = listed(tellings.RISK_NONE), listed(tellings.RISK_SOME)
_MORE_THAN, _EQUAL = listed(tellings.MORE_THAN), listed(tellings.EQUAL)
_TWINS = [
    tuple(listed(side) for side in entry.split("||")) for entry in tellings.TWINS.split("\n\n")
]
# The words of a slot for facts that raise a quantity, and for those that lower it.
_BY_SIGN = {
    "U": (
        "increases|raises|enhances|promotes|elevates|stimulates|augments|boosts|upregulates"
        "|amplifies|strengthens|facilitates",
        "decreases|reduces|lowers|inhibits|suppresses|attenuates|impairs|diminishes|limits"
        "|downregulates|blocks|weakens|abolishes|prevents|curbs",
    ),
    "I": (
        "increase|raise|enhance|promote|elevate|stimulate|induce",
        "decrease|reduce|lower|inhibit|suppress|attenuate|impair",
    ),
    "u": (
        "increased|raised|enhanced|elevated|higher|greater|augmented",
        "decreased|reduced|lower|impaired|diminished|attenuated|suppressed|blunted",
    ),
    "Ub": (
        "increased|raised|enhanced|promoted|elevated|stimulated",
        "decreased|reduced|lowered|inhibited|suppressed|attenuated|impaired",
    ),
    "noun": ("increase|rise|gain|elevation", "decrease|reduction|decline|fall|drop"),
    "a_noun": (
        "an increase|a rise|a gain|an elevation",
        "a decrease|a reduction|a decline|a fall|a drop",
    ),
    "went": ("rose|increased|went up|improved|grew", "fell|decreased|went down|declined|dropped"),
    "role": (
        "driver|positive regulator|promoter|stimulator",
        "suppressor|negative regulator|inhibitor",
    ),
    "need": (tellings.NEED, tellings.AGAINST),
}
# The same against the direction of the fact.
_AGAINST_SIGN = {"n": "u", "a_noun_n": "a_noun", "n_past": "Ub"}


class Pair(NamedTuple):
    """A source, a statement about it, and how it stands: 0 supported, 1 contradicted, 2 silent."""

    source: str
    statement: str
    label: int


class _Side(NamedTuple):
    """Tellings of a fact in a source, and in a statement that it supports."""

    read: _Ways
    told: _Ways


def _both(ways: _Ways) -> _Side:
    return _Side(ways, ways)


def _signed(ways: _Ways, sign: int) -> _Ways:
    return tuple(f"{'+' if sign > 0 else '-'}{one}" for one in ways)


def _swapped(ways: _Ways) -> _Ways:
    turned = {"{A}": "{C}", "{C}": "{A}"}
    return tuple(re.sub(r"\{[AC]\}", lambda match: turned[match.group()], one) for one in ways)


def capitalised(text: str) -> str:
    """Returns a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


class ClaimGrammar:
    """Makes pairs.

    Args:
        rng: Source of chance.
        names: Further names of things, such as those in a collection.
    """

    def __init__(self, rng: random.Random, names: Sequence[str] = ()) -> None:
        self._rng = rng
        self._names = names

    def pairs(self) -> list[Pair]:
        """Returns five pairs about one fact and its opposite, which share their words."""
        slots = self._slots()
        one, two = self._family()
        first, second = self._tell(one.read, slots), self._tell(two.read, slots)
        like_first = self._statement(self._tell(one.told, slots, told=True))
        like_second = self._statement(self._tell(two.told, slots, told=True))
        sources = self._source(first), self._source(second)
        keep = self._rng.choice("ABDC")
        strange = slots | {name: word for name, word in self._slots().items() if name != keep}
        other = self._tell(self._rng.choice((one.told, two.told)), strange, told=True)
        return [
            Pair(sources[0], like_first, SUPPORTED),
            Pair(sources[0], like_second, CONTRADICTED),
            Pair(sources[1], like_second, SUPPORTED),
            Pair(sources[1], like_first, CONTRADICTED),
            Pair(self._rng.choice(sources), self._statement(other), SILENT),
        ]

    def _family(self) -> tuple[_Side, _Side]:
        """Returns the tellings of two facts that contradict each other."""
        pick, kind = self._rng.choice, self._rng.random()
        if kind < 0.5:
            pair = self._effects(pick((1, -1)))
        elif kind < 0.72:
            more, less = pick([(_RISK_UP, _RISK_DOWN), (_RISK_DOWN, _RISK_UP)])
            none = _both(_RISK_NONE)
            choices = [*[(_both(more), _both(less))] * 4, *[(_both(more), none)] * 2]
            pair = pick([*choices, (_Side(more, _RISK_SOME), none)])
        elif kind < 0.84:
            worse, equal = _both(_swapped(_MORE_THAN)), _both(_EQUAL)
            better = _both(_MORE_THAN)
            pair = pick([(better, worse), (better, equal), (worse, equal)])
        else:
            one, two = pick(_TWINS)
            pair = _both(one), _both(two)
        return pair if self._rng.random() < 0.5 else pair[::-1]

    def _effects(self, sign: int) -> tuple[_Side, _Side]:
        some, denied = _signed(_EFFECT, sign), _signed(_NOT_SO, sign) * 2
        against = _signed(_EFFECT, -sign)
        none = _both(_NO_EFFECT)
        return self._rng.choice(
            [
                *[(_both(some), _Side(against, against + denied))] * 4,
                *[(_both(some), _both(_NO_EFFECT + denied))] * 2,
                # Whatever raises or lowers something affects it, but not the reverse.
                (_Side(some, _SOME_EFFECT), none),
                (_both(_SOME_EFFECT), none),
            ]
        )

    def _slots(self) -> dict[str, str]:
        pick = self._rng.choice
        found = {name: pick(pool) for name, pool in _POOLS.items()}
        found["C"] = pick(_POOLS["A"])
        for name in "AC":
            if self._rng.random() < 0.35:
                found[name] = self._name()
        if self._rng.random() < 0.1:
            found["B"] = f"{self._name()} {pick(_OF_NAMES)}"
        return found

    def _name(self) -> str:
        pick = self._rng.choice
        if self._names and self._rng.random() < 0.3:
            return pick(self._names)
        letters = "".join(pick("ABCDEFGHIKLMNPRSTVXZ") for _ in range(self._rng.randint(2, 4)))
        return pick(_NAME_FORMS).format(letters, self._rng.randint(1, 99))

    def _tell(self, ways: _Ways, slots: dict[str, str], *, told: bool = False) -> str:
        if told:
            # A source that tells no numbers supports no statement that does.
            ways = tuple(one for one in ways if not _NUMBERS.search(one))
        text = self._rng.choice(ways)
        sign = {"+": 1, "-": -1}.get(text[0], 0)
        text = text[1:] if sign else text
        parts = slots | self._numbers(sign) | self._of_sign(sign)
        while "{" in text:
            text = text.format_map(parts)
        return text

    def _of_sign(self, sign: int) -> dict[str, str]:
        pick = self._rng.choice
        row = 0 if sign > 0 else 1
        found = {name: pick(listed(both[row])) for name, both in _BY_SIGN.items()}
        for name, source in _AGAINST_SIGN.items():
            found[name] = pick(listed(_BY_SIGN[source][1 - row]))
        return found | {"K": pick(_LACK), "W": pick(_GAIN)}

    def _numbers(self, sign: int) -> dict[str, str]:
        rng = self._rng
        low, high = sorted(rng.sample(range(3, 96), 2))
        share = rng.random() < 0.6
        ends = (f"{low}%", f"{high}%") if share else (f"{low / 10}", f"{high / 10}")
        return {
            "x": ends[sign < 0],
            "y": ends[sign >= 0],
            "above": f"{rng.uniform(1.15, 4):.2f}",
            "below": f"{rng.uniform(0.2, 0.87):.2f}",
            "big": f"{rng.randint(52, 95)}%",
            "small": f"{rng.randint(3, 40)}%",
            "year": str(rng.randint(1950, 2000)),
            "later": str(rng.randint(2001, 2020)),
            "weeks": str(rng.randint(2, 60)),
            "count": str(rng.randint(12, 4000)),
        }

    def _statement(self, text: str) -> str:
        return self._sentence(text, lead=0.15)

    def _sentence(self, text: str, *, lead: float, tail: float = 0.0) -> str:
        if self._rng.random() < tail:
            end = self._rng.choice(_TAILS)
            text += end if end.startswith(",") else f" {end}"
        if self._rng.random() < lead:
            text = f"{self._rng.choice(_LEADS)} {text}"
        return f"{capitalised(text.format_map(self._slots() | self._numbers(0)))}."

    def _source(self, text: str) -> str:
        """Returns a text that contains a telling, with tellings of other facts around it."""
        found = [self._sentence(text, lead=0.6, tail=0.6)]
        for _ in range(self._rng.choice((0, 0, 1, 1, 2))):
            other = self._tell(self._rng.choice(self._family()).read, self._slots())
            found.insert(self._rng.randint(0, len(found)), self._sentence(other, lead=0.4))
        return " ".join(found)
