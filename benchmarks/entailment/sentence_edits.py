"""Supported, contradicted and silent statements, made by rule from sentences of a collection."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence

from benchmarks.entailment import word_pairs
from benchmarks.entailment.claim_grammar import (
    CONTRADICTED,
    SILENT,
    SUPPORTED,
    Pair,
    capitalised,
    listed,
)


def _table(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in listed(text):
        word, _, other = entry.partition(" ")
        found.setdefault(word, []).append(other)
    return found


_SYNONYM = _table(word_pairs.SYNONYMS)
_OPPOSITE = _table(word_pairs.OPPOSITES)
for _entry in listed(word_pairs.OPPOSITES):
    _word, _, _other = _entry.partition(" ")
    _OPPOSITE.setdefault(_other, []).append(_word)

_NUMBER = re.compile(r"\b\d{1,3}(?:,\d{3})+\b|\b\d+(?:\.\d+)?\b")
_NAME = re.compile(r"(?<=[a-z,;] )(?:[A-Z][\w’'-]+)(?: (?:[A-Z][\w’'-]+|of(?= [A-Z])))*")
_VERBS = "is|was|are|were|can|could|will|would|should|did|does|do|must"
_AUX = re.compile(rf"\b({_VERBS}|has been|have been|had been)\b(?! (?:not|n't|no|never|been)\b)")
_DENIAL = re.compile(rf"\b({_VERBS}|has|have|had) not\b(?! only)|\bnever\b")
_WORD = re.compile(r"[A-Za-z]+")
_BRACKET = re.compile(r" ?\([^()]*\)")
_LEAD = re.compile(
    r"^(?:In|On|At|After|Before|During|By|Since|For|From|Under|According to|Although|While|As)\b"
    r"[^,;]{3,80}, (?=\S)"
)
_TAIL = re.compile(
    r"(?:, (?:and|but|which|who|where|with|including|such as|although|while|so|as|making|after"
    r"|when)\b|; | (?:because|although|whereas|while|when|after|before|during|since|where"
    r"|in order to|so that|for the|in the|with the|by the) )[^,;]{6,}\.?$"
)
_MIDDLE = re.compile(
    r", (?:which|who|where|a|an|the|including|born|known|formerly)\b[^,;]{3,80}(?=, )"
)
_ADVERB = re.compile(
    r"\b(?:also|then|very|usually|often|however|approximately|about|later|especially|particularly"
    r"|currently|generally|still|finally|eventually|largely|mainly)\b ",
    re.IGNORECASE,
)

_LEADS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "It is known that ",
    "According to the source, ",
    "As noted, ",
    "In short, ",
)


class SentenceEdits:
    """Makes pairs from sections of documents.

    Args:
        sections: Title and sentences of each.
        rng: Source of chance.
    """

    def __init__(self, sections: Sequence[tuple[str, Sequence[str]]], rng: random.Random) -> None:
        fitting = [
            (title, [text for text in texts if 6 <= len(text.split()) <= 45])
            for title, texts in sections
        ]
        self._sections = [one for one in fitting if len(one[1]) > 2]
        self._rng = rng
        everything = (text for _, texts in self._sections for text in texts)
        names = {name for text in everything for name in _NAME.findall(text)}
        self._edits = [
            *(self._number, self._name, self._name, self._negate, self._negate),
            *(self._opposite, self._opposite, self._opposite, self._roles),
        ]
        self.names: list[str] = sorted(name for name in names if len(name) > 2)

    def pairs(self) -> list[tuple[str, Pair]]:
        """Returns the title and pairs of a random sentence; none if it cannot be changed."""
        title, texts = self._rng.choice(self._sections)
        at = self._rng.randrange(len(texts))
        source = texts[at]
        edit = self._rng.choice(self._edits)
        changed = edit(source, texts)
        state = self._rng.getstate()
        told = self._shorten(source)
        if changed is None or changed == source:
            return []
        self._rng.setstate(state)
        twin = self._shorten(changed)
        if twin == told:
            return []
        around, around_twin = self._surround(texts, at, source, changed)
        other = texts[self._rng.choice([k for k in range(len(texts)) if k != at])]
        found = [
            (title, Pair(around, self._say(told), SUPPORTED)),
            (title, Pair(around, self._say(twin), CONTRADICTED)),
            (title, Pair(around_twin, self._say(twin), SUPPORTED)),
            (title, Pair(around_twin, self._say(told), CONTRADICTED)),
        ]
        if other not in around:
            found.append((title, Pair(around, self._say(self._shorten(other)), SILENT)))
        short = self._shorten(source, always=True)
        if len(short.split()) <= len(source.split()) - 4:
            found.append(
                (
                    title,
                    Pair(self._surround(texts, at, short, short, narrow=True)[0], source, SILENT),
                )
            )
        return found

    def _surround(
        self, texts: Sequence[str], at: int, one: str, two: str, *, narrow: bool = False
    ) -> tuple[str, str]:
        before = self._rng.choice((0, 0, 1))
        after = 0 if narrow else self._rng.choice((0, 0, 1))
        if narrow:
            before = 0
        head, tail = texts[max(0, at - before) : at], texts[at + 1 : at + 1 + after]
        return " ".join([*head, one, *tail]), " ".join([*head, two, *tail])

    def _say(self, text: str) -> str:
        text = self._rng.choice(_LEADS) + text
        return capitalised(text)

    def _shorten(self, text: str, *, always: bool = False) -> str:
        cuts: list[Callable[[str], str]] = [
            lambda t: _BRACKET.sub("", t),
            lambda t: _LEAD.sub("", t, count=1),
            lambda t: _TAIL.sub(".", t, count=1),
            lambda t: _MIDDLE.sub(",", t, count=1),
            lambda t: _ADVERB.sub("", t, count=1),
            self._synonyms,
        ]
        self._rng.shuffle(cuts)
        for cut in cuts[: len(cuts) if always else self._rng.randint(1, 5)]:
            short = cut(text)
            if len(short.split()) >= 5:
                text = short
        text = text.strip()
        return capitalised(text) + ("" if text.endswith((".", "!", "?", '"', "”")) else ".")

    def _synonyms(self, text: str) -> str:
        chance = self._rng.random()
        if chance >= 0.7:
            return text
        return _WORD.sub(lambda match: _SYNONYM.get(match.group(), [match.group()])[0], text)

    def _at_random(
        self, pattern: re.Pattern[str], text: str, new: Callable[[re.Match[str]], str | None]
    ) -> str | None:
        matches = list(pattern.finditer(text))
        self._rng.shuffle(matches)
        for match in matches:
            word = new(match)
            if word is not None and word != match.group():
                return text[: match.start()] + word + text[match.end() :]
        return None

    def _number(self, text: str, texts: Sequence[str]) -> str | None:
        def other(match: re.Match[str]) -> str | None:
            number = match.group()
            if self._rng.random() < 0.4:
                found: list[str] = [
                    n
                    for t in texts
                    for n in _NUMBER.findall(t)
                    if len(n) == len(number) and n not in text
                ]
                if found:
                    return self._rng.choice(found)
            plain = number.replace(",", "")
            if "." in plain:
                changed = float(plain) * self._rng.choice((0.5, 1.5, 2, 3))
                return f"{changed:.{len(plain.split('.')[1])}f}"
            value = int(plain)
            new = value + self._rng.choice((-1, 1)) * self._rng.randint(
                1, max(2, min(60, value // 3 + 1))
            )
            if new < 0 or len(str(new)) != len(plain):
                new = value + 1
            return f"{new:,}" if "," in number else str(new)

        return self._at_random(_NUMBER, text, other)

    def _name(self, text: str, texts: Sequence[str]) -> str | None:
        def other(match: re.Match[str]) -> str | None:
            name = match.group()
            near: list[str] = [n for t in texts for n in _NAME.findall(t) if n not in text]
            pool = near if near and self._rng.random() < 0.7 else self.names
            same = [n for n in pool if n.count(" ") == name.count(" ") and n not in text] or pool
            return self._rng.choice(same)

        return self._at_random(_NAME, text, other)

    def _negate(self, text: str, texts: Sequence[str]) -> str | None:
        if _DENIAL.search(text):
            return self._at_random(_DENIAL, text, lambda m: m.group(1) or "always")
        deny = self._rng.choice(("{} not", "{} not", "{} not", "{} never"))

        def denied(match: re.Match[str]) -> str:
            first, _, rest = match.group().partition(" ")
            return deny.format(first) + (f" {rest}" if rest else "")

        return self._at_random(_AUX, text, denied)

    def _opposite(self, text: str, texts: Sequence[str]) -> str | None:
        def other(match: re.Match[str]) -> str | None:
            word = match.group()
            found = _OPPOSITE.get(word.lower())
            if not found:
                return None
            new = self._rng.choice(found)
            return new.capitalize() if word[0].isupper() else new

        return self._at_random(_WORD, text, other)

    def _roles(self, text: str, texts: Sequence[str]) -> str | None:
        names = list(_NAME.finditer(text))
        for one, two in itertools.pairwise(names):
            between = text[one.end() : two.start()]
            if (
                len(between.split()) >= 2
                and one.group() != two.group()
                and not re.fullmatch(r"[\s,]*(?:and|or|,)[\s,]*", between)
            ):
                return text[: one.start()] + two.group() + between + one.group() + text[two.end() :]
        return None
