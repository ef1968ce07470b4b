"""Rules of a synonyms file, in the format of Solr and Elasticsearch.

    # Words that stand for one another, and words that are also found by others.
    tv, television, telly
    nyc => new york city, big apple

An entry may have several words. A backslash before a comma or => makes it part of an entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from nearline.errors import InvalidRequest
from retrieval.index.lexical.text_analysis import Analyser, split_query

MAX_FILE_BYTES = 4 << 20
MAX_RULES = 10_000
MAX_ENTRIES = 32
MAX_ENTRY_CHARACTERS = 256
MAX_LINE_CHARACTERS = 16_384
# Two Han or kana characters that follow each other are a word.
MAX_ENTRY_WORDS = 16
# Synonyms of an entry over all rules.
MAX_SYNONYMS = 32
MAX_PAIRS = 200_000
FIELD = "synonyms"

_COMMA, _ARROW = re.compile(r"(?<!\\),"), re.compile(r"(?<!\\)=>")
_ESCAPED = re.compile(r"\\(,|=>|\\)")
_SHOWN = 40
_SHOWN_LINES = 5


class SynonymRule(NamedTuple):
    """A line of a synonyms file.

    line: Its number, from 1. left, right: Entries as written; a query with one of `left` is
    answered by `right`, too. Without `right`, each of `left` stands for the others.
    """

    line: int
    left: Sequence[str]
    right: Sequence[str] = ()

    def pairs(self) -> tuple[Sequence[str], Sequence[str]]:
        """Returns the entries of queries and those that they are also answered by."""
        return self.left, self.right or self.left


class Synonyms(NamedTuple):
    """The rules of a collection. name: Of their file or field, for messages."""

    rules: Sequence[SynonymRule]
    name: str = FIELD


def read_synonyms(path: Path) -> Synonyms:
    """Reads the rules of a synonyms file; blocks.

    Raises: InvalidRequest: as `read_synonym_lines` and `parse_synonyms`.
    """
    return parse_synonyms(read_synonym_lines(path), path.name)


def read_synonym_lines(path: Path) -> list[str]:
    """Reads the lines of a synonyms file; blocks.

    Raises: InvalidRequest: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(
            f"the synonyms file {path} cannot be read ({error.strerror}); name a text file"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise _invalid(
            f"the synonyms file {path} has more than {MAX_FILE_BYTES:,} bytes; remove rules that "
            "your queries do not need"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(
            f"{path.name}, line {line}: it is not UTF-8; save the file as UTF-8"
        ) from error
    # Not by splitlines, which also splits at signs that editors show within a line.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_synonyms(lines: Iterable[str], name: str = FIELD) -> Synonyms:
    """Returns the rules of lines.

    Args:
        lines: Without comments (lines that begin with #) and empty ones, at most 10,000.
        name: Of the file or field, for messages.
    Raises: InvalidRequest: a line is no rule, or there are too many; the text names the line.
    """
    rules: list[SynonymRule] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        where = f"{name}, line {number}"
        if len(rules) == MAX_RULES:
            raise _invalid(
                f"{where}: more than {MAX_RULES:,} rules; remove those that your queries do not "
                "need"
            )
        rules.append(_rule(number, text, where))
    return Synonyms(rules, name)


def check_synonyms(synonyms: Synonyms, analyser: Analyser) -> None:
    """Checks rules against one another, as words of a collection.

    Args:
        synonyms: As `parse_synonyms` returns them.
        analyser: The analyser of the collection.
    Raises: InvalidRequest: an entry has more than 32 synonyms, all entries together have more than
        200,000, or one-way rules form a cycle; the text names the lines.
    """
    words, name = EntryWords(analyser), synonyms.name
    by_key: dict[str, set[str]] = {}
    one_way: dict[str, dict[str, int]] = {}
    pairs = 0
    for rule in synonyms.rules:
        left, right = rule.pairs()
        for entry in left:
            key = words.key(entry)
            found = by_key.setdefault(key, set())
            pairs -= len(found)
            found.update(other for other in right if other != entry)
            pairs += len(found)
            if len(found) > MAX_SYNONYMS:
                raise _invalid(
                    f"{name}, line {rule.line}: with it, {_shown(entry)} has more than "
                    f"{MAX_SYNONYMS} synonyms; remove some"
                )
            if pairs > MAX_PAIRS:
                raise _invalid(
                    f"{name}, line {rule.line}: with it, the entries have more than {MAX_PAIRS:,} "
                    "synonyms in all; remove rules that your queries do not need"
                )
            if rule.right:
                lines = one_way.setdefault(key, {})
                for other in map(words.key, right):
                    lines.setdefault(other, rule.line)
    _check_no_cycle(one_way, name)


class EntryWords:
    """Splits entries into words as queries are split; caches them.

    Args:
        analyser: The analyser of the collection.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self._known: dict[str, tuple[str, ...]] = {}

    def stems(self, entry: str) -> tuple[str, ...]:
        """Returns the stems of the words of an entry; without stop words, if it has others."""
        found = self._known.get(entry)
        if found is None:
            split = split_query(entry)
            words = [word for word in split if word not in self._analyser.stop_words] or split
            found = self._known[entry] = tuple(self._analyser.stems(words))
        return found

    def key(self, entry: str) -> str:
        """Returns what identifies an entry, whether it is written with spaces, hyphens or none."""
        return "".join(self.stems(entry))


def _rule(number: int, text: str, where: str) -> SynonymRule:
    if "\x00" in text:
        raise _invalid(f"{where}: it has a NUL character; save the file as UTF-8 text")
    if "\n" in text.strip() or "\r" in text.strip():
        raise _invalid(f"{where}: it has a line break; pass each line as a rule of its own")
    if len(text) > MAX_LINE_CHARACTERS:
        raise _invalid(
            f"{where}: it has {len(text):,} characters; at most {MAX_LINE_CHARACTERS:,} are "
            "allowed; write several lines"
        )
    sides = _ARROW.split(text, 2)
    if len(sides) > 2:
        raise _invalid(f"{where}: it has more than one =>; write a line for each")
    # One more entry than allowed is enough to refuse them.
    entries = [_COMMA.split(side, MAX_ENTRIES) for side in sides]
    if sum(map(len, entries)) > MAX_ENTRIES:
        raise _invalid(f"{where}: more than {MAX_ENTRIES} entries; write several lines")
    left, *right = (tuple(_entry(entry, where) for entry in side) for side in entries)
    if not right and len(left) == 1:
        raise _invalid(
            f"{where}: {_shown(left[0])} is alone; write its synonyms after a comma, or after =>"
        )
    return SynonymRule(number, left, *right)


def _entry(text: str, where: str) -> str:
    entry = _ESCAPED.sub(r"\1", text.strip())
    if len(entry) > MAX_ENTRY_CHARACTERS:
        raise _invalid(
            f"{where}: the entry {_shown(entry)} has {len(entry):,} characters; at most "
            f"{MAX_ENTRY_CHARACTERS} are allowed"
        )
    words = len(split_query(entry))
    if not words:
        raise _invalid(
            f"{where}: an entry has no word: {_shown(entry)}; remove it, or write a word on each "
            "side of every comma and =>"
        )
    if words > MAX_ENTRY_WORDS:
        raise _invalid(
            f"{where}: the entry {_shown(entry)} has {words} words; at most {MAX_ENTRY_WORDS} are "
            "allowed"
        )
    return entry


def _check_no_cycle(one_way: Mapping[str, Mapping[str, int]], name: str) -> None:
    """Raises InvalidRequest if an entry leads back to itself by several one-way rules.

    Args:
        one_way: By the key of an entry, the keys that it leads to, each with a line.
    """
    graph: TopologicalSorter[str] = TopologicalSorter()
    for key, others in one_way.items():
        # "nyc => nyc, new york" is no cycle: it says in Solr that the word itself counts, too.
        graph.add(key, *(other for other in others if other != key))
    try:
        graph.prepare()
    except CycleError as error:
        keys = error.args[1][::-1]
        lines = sorted({one_way[key][other] for key, other in pairwise(keys)})
        shown = ", ".join(map(str, lines[:_SHOWN_LINES]))
        more = f" and {len(lines) - _SHOWN_LINES} more" if len(lines) > _SHOWN_LINES else ""
        raise _invalid(
            f"{name}, lines {shown}{more}: these rules with => form a cycle; write words that "
            "stand for one another on one line, separated by commas"
        ) from error


def _shown(entry: str) -> str:
    return repr(entry if len(entry) <= _SHOWN else entry[:_SHOWN] + "…")


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, field=FIELD)
