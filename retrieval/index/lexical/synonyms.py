"""The synonyms of a snapshot, in <snapshot>/lexical/synonyms.json if it has any.

A JSON object: version; chunks, the number of chunks of the snapshot; rules, lists of the line, the
left and the right entries of each `SynonymRule`, as written. They become words when the snapshot is
loaded, so that a build with another language can take them over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.index.lexical.synonym_rules import (
    MAX_ENTRY_WORDS,
    MAX_SYNONYMS,
    EntryWords,
    SynonymRule,
)
from retrieval.index.lexical.text_analysis import Analyser

SYNONYMS = "synonyms.json"
VERSION = 1
# Share of the score of a word that a synonym has at most: less than the word itself, and more than
# a word with a typo, since somebody who knows the collection says that they mean the same.
SYNONYM_WEIGHT = 0.8


class SynonymMatch(NamedTuple):
    """Words of a query, first..stop - 1, and the synonyms of them together, as stems."""

    first: int
    stop: int
    synonyms: Sequence[tuple[str, ...]]


class SynonymTable:
    """Finds synonyms of the words of a query; may be asked from several threads.

    Args:
        rules: The rules of the snapshot.
        analyser: The analyser of the snapshot.
        chunks: Number of chunks of the snapshot.
    """

    def __init__(self, rules: Sequence[SynonymRule], analyser: Analyser, chunks: int) -> None:
        self._chunks = chunks
        words = EntryWords(analyser)
        found: dict[str, dict[tuple[str, ...], None]] = {}
        for rule in rules:
            left, right = rule.pairs()
            stems = list(map(words.stems, right))
            for entry in left:
                synonyms = found.setdefault(words.key(entry), {})
                # Fewer in all but files for another language, in which these entries differ.
                if len(synonyms) <= MAX_SYNONYMS:
                    synonyms |= dict.fromkeys(stems)
        self._synonyms = {key: list(stems) for key, stems in found.items()}
        self._longest = max(map(len, self._synonyms), default=0)

    def __contains__(self, stem: str) -> bool:
        """Returns whether a word has synonyms."""
        return stem in self._synonyms

    def matches(self, stems: Sequence[str]) -> Iterator[SynonymMatch]:
        """Yields the entries of a query from left to right; of several, the longest.

        Args:
            stems: The words of the query, in order.
        """
        first = 0
        while first < len(stems):
            key, found, stop = "", "", first
            for at in range(first, min(first + MAX_ENTRY_WORDS, len(stems))):
                key += stems[at]
                if len(key) > self._longest:
                    break
                if key in self._synonyms:
                    found, stop = key, at + 1
            if found:
                own = tuple(stems[first:stop])
                yield SynonymMatch(first, stop, [s for s in self._synonyms[found] if s != own])
            first = max(stop, first + 1)

    def idf(self, found_in: int) -> float:
        """Returns the largest BM25 score of a word, > 0, by the number of chunks with it."""
        return math.log(1 + (self._chunks - found_in + 0.5) / (found_in + 0.5))

    @classmethod
    def load(cls, folder: Path, analyser: Analyser) -> SynonymTable | None:
        """Reads the synonyms in the lexical folder of a snapshot; None if it has none.

        Raises: As `load_rules`.
        """
        rules, chunks = _read(folder)
        return cls(rules, analyser, chunks) if rules else None


def load_rules(folder: Path) -> list[SynonymRule]:
    """Returns the rules in the lexical folder of a snapshot.

    Raises: SnapshotCorrupt: the file is not valid. SnapshotMismatch: its format is of a later
        version.
    """
    return _read(folder)[0]


def write_synonyms(folder: Path, rules: Sequence[SynonymRule], chunks: int) -> None:
    """Writes the rules of a snapshot; no file if there are none.

    Args:
        folder: The lexical folder of the snapshot.
        rules: The rules.
        chunks: Number of chunks of the snapshot.
    """
    if rules:
        record = {"version": VERSION, "chunks": chunks, "rules": rules}
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        (folder / SYNONYMS).write_text(text + "\n", encoding="utf-8")


def _read(folder: Path) -> tuple[list[SynonymRule], int]:
    path = folder / SYNONYMS
    if not path.exists():
        return [], 0
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(record["version"])
        if version > VERSION:
            raise SnapshotMismatch(
                f"{path} has format {version}; this nearline reads {VERSION} at most; update it, "
                "or rebuild the snapshot"
            )
        rules = [
            SynonymRule(int(line), tuple(map(str, left)), tuple(map(str, right)))
            for line, left, right in record["rules"]
        ]
        return rules, int(record["chunks"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SnapshotCorrupt(
            f"{path} is not a readable list of synonyms ({error}); rebuild the snapshot"
        ) from error
