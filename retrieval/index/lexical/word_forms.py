"""The words of a snapshot as they are written, to find those that resemble a misspelt one.

Two files in <snapshot>/lexical/. forms.arrow: one record batch, by the UTF-8 bytes of the form;
columns: form large_string, folded and in lower case, not stemmed; word uint32, its number in the
vocabulary. form_segments.npy: (n,) of (hash uint32, form uint32), by hash: the segments of each
form. A word within d edits of a form has at least one of the form's d + 1 segments, at most d
places off, or has it once two letters at the border of segments are swapped. Source: Li et al.
2011, "PASS-JOIN: A Partition-based Method for Similarity Joins".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from nearline.errors import SnapshotCorrupt
from retrieval.index.weak_methods import weak_method

FORMS, SEGMENTS = "forms.arrow", "form_segments.npy"
SCHEMA = pa.schema([("form", pa.large_string()), ("word", pa.uint32())])
SEGMENT = np.dtype([("hash", "<u4"), ("form", "<u4")])
MIN_FORM, MAX_FORM = 3, 32
# One edit from this many letters, two from the other.
_ONE_EDIT, _TWO_EDITS = 4, 8
# Forms that are compared with a word; about 2 ms. If more have a segment of it, those are compared
# whose segments are in the fewest forms.
_MAX_COMPARED = 8_192
_CACHED = 4_096
_MAX_STARTING = 256
# 2^64 divided by the golden ratio; products with it differ in their high bits.
_FACTOR = 0x9E37_79B9_7F4A_7C15
_MASK = (1 << 64) - 1


class SimilarForm(NamedTuple):
    """A form that resembles a word: number of edits, the form, and its word in the vocabulary."""

    edits: int
    form: str
    word: int


class WordForms:
    """The forms of a snapshot, memory-mapped; may be asked from several threads.

    Args:
        table: See the module; one record batch.
        segments: (n,) SEGMENT.
    """

    def __init__(self, table: pa.Table, segments: NDArray[np.void]) -> None:
        self._forms = table.column("form").combine_chunks()
        self._words: NDArray[np.uint32] = table.column("word").to_numpy()
        self._hashes = np.ascontiguousarray(segments["hash"])
        self._segments = segments
        self.similar = lru_cache(_CACHED)(weak_method(self._find_similar))

    def __len__(self) -> int:
        return len(self._words)

    @classmethod
    def load(cls, folder: Path) -> WordForms:
        """Maps the forms in the lexical folder of a snapshot.

        Raises: SnapshotCorrupt: a file is missing or not valid.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(folder / FORMS))).read_all()
            segments = np.load(folder / SEGMENTS, mmap_mode="r", allow_pickle=False)
            if segments.dtype != SEGMENT or segments.ndim != 1:
                raise ValueError(f"{SEGMENTS} has type {segments.dtype}")
            return cls(table.select(SCHEMA.names).cast(SCHEMA), np.asarray(segments))
        except (pa.ArrowException, KeyError, ValueError, EOFError, OSError) as error:
            raise SnapshotCorrupt(
                f"{folder} has no readable word forms ({error}); rebuild the snapshot"
            ) from error

    def starting(self, prefix: str) -> list[int]:
        """Returns the words of the first forms that begin with a prefix of four letters or more."""
        if len(prefix) < _ONE_EDIT or not len(self):
            return []
        first = bisect_left(range(len(self)), prefix, key=self._form)
        found = []
        for number in range(first, min(first + _MAX_STARTING, len(self))):
            if not self._form(number).startswith(prefix):
                break
            found.append(int(self._words[number]))
        return list(dict.fromkeys(found))

    def _form(self, number: int) -> str:
        form: str = self._forms[number].as_py()
        return form

    def _find_similar(self, word: str) -> tuple[SimilarForm, ...]:
        """Returns the forms within `edits_allowed` of a word, by (edits, form); not itself."""
        edits = edits_allowed(word)
        if not edits or not len(self):
            return ()
        hashes = np.array([*_query_hashes(word, 1), *_query_hashes(word, edits)], np.uint32)
        hashes = np.unique(hashes)
        starts = np.searchsorted(self._hashes, hashes, "left")
        stops = np.searchsorted(self._hashes, hashes, "right")
        spans = sorted(zip((stops - starts).tolist(), starts.tolist(), strict=True))
        found: list[NDArray[np.uint32]] = []
        room = _MAX_COMPARED
        for length, start in spans:
            if not length:
                continue
            found.append(self._segments["form"][start : start + min(length, room)])
            room -= length
            if room <= 0:
                break
        places = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint32)
        forms = self._forms.take(pa.array(places)).to_pylist()
        return tuple(
            SimilarForm(distance, forms[at], int(self._words[places[at]]))
            for distance, at in _closest(word, forms, edits)
        )


def edits_allowed(word: str) -> int:
    """Returns by how many edits a word may be misspelt: 0, 1 or 2."""
    if not word.isalpha() or not _ONE_EDIT <= len(word) <= MAX_FORM:
        return 0
    return 2 if len(word) >= _TWO_EDITS else 1


def similar_words(word: str, words: Sequence[str]) -> list[tuple[int, str]]:
    """Returns the edits and the word of those that resemble a word, by (edits, word)."""
    edits = edits_allowed(word)
    return [(distance, words[at]) for distance, at in _closest(word, words, edits)] if edits else []


def write_forms(folder: Path, forms: Sequence[str], words: Sequence[int]) -> None:
    """Writes the forms of a snapshot.

    Args:
        folder: The lexical folder of the snapshot.
        forms: Distinct forms, by their UTF-8 bytes; see `is_form`.
        words: The number of each in the vocabulary.
    """
    batch = pa.record_batch(
        [pa.array(forms, pa.large_string()), pa.array(words, pa.uint32())], schema=SCHEMA
    )
    with (folder / FORMS).open("wb") as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
        writer.write_batch(batch)
    segments = np.concatenate(list(_form_segments(forms)) or [np.empty(0, SEGMENT)])
    np.save(folder / SEGMENTS, segments[np.argsort(segments["hash"], kind="stable")])


def is_form(word: str) -> bool:
    """Returns whether a word may be what somebody meant."""
    return MIN_FORM <= len(word) <= MAX_FORM and word.isalpha()


def _closest(word: str, forms: Sequence[str], edits: int) -> list[tuple[int, int]]:
    """Returns (edits, position) of the forms within a number of edits, the nearest first."""
    if not forms:
        return []
    distances = cdist([word], forms, scorer=OSA.distance, score_cutoff=edits, dtype=np.uint8)[0]
    near = np.flatnonzero((distances <= edits) & (distances > 0)).tolist()
    return sorted(
        ((int(distances[at]), at) for at in near), key=lambda one: (one[0], forms[one[1]])
    )


def _partition(length: int, parts: int) -> list[tuple[int, int]]:
    """Returns (start, length) of nearly equal parts of a word."""
    short, longer = divmod(length, parts)
    bounds = [short * part + max(0, part - (parts - longer)) for part in range(parts + 1)]
    return [(start, stop - start) for start, stop in pairwise(bounds)]


def _form_segments(forms: Sequence[str]) -> Iterator[NDArray[np.void]]:
    """Yields the segments of all forms."""
    lengths = np.fromiter(map(len, forms), np.int64, len(forms))
    for length in range(MIN_FORM, MAX_FORM + 1):
        numbers = np.flatnonzero(lengths == length)
        if not len(numbers):
            continue
        letters = np.array([forms[number] for number in numbers.tolist()], f"<U{length}")
        columns = letters.view(np.uint32).reshape(-1, length).astype(np.uint64).T
        for edits, shortest in ((1, _ONE_EDIT - 1), (2, _TWO_EDITS - 2)):
            if length < shortest:
                continue
            for part, (start, size) in enumerate(_partition(length, edits + 1)):
                hashes = np.full(len(numbers), _seed(length, part, edits), np.uint64)
                for column in columns[start : start + size]:
                    hashes = (hashes + column) * np.uint64(_FACTOR)
                segments = np.empty(len(numbers), SEGMENT)
                segments["hash"], segments["form"] = hashes >> np.uint64(32), numbers
                yield segments


def _query_hashes(word: str, edits: int) -> Iterator[int]:
    """Yields the hashes of the segments that forms within a number of edits may have."""
    length = len(word)
    for form_length in range(length - edits, length + edits + 1):
        parts = _partition(form_length, edits + 1)
        for part, (start, size) in enumerate(parts):
            for shifted in range(max(0, start - edits), min(length - size, start + edits) + 1):
                yield _hash(word[shifted : shifted + size], form_length, part, edits)
        # A transposition across the border of two segments is in both; the outer one is intact once
        # the letters are swapped, for the other edit, if there is one, is in the third segment.
        off = length - form_length
        if abs(off) < edits:
            first, last = parts[1][0], parts[-1][0] + off
            yield _hash(word[: first - 1] + word[first], form_length, 0, edits)
            yield _hash(word[last - 1] + word[last + 1 :], form_length, edits, edits)


def _hash(segment: str, length: int, part: int, edits: int) -> int:
    """Returns the hash of a segment, 0..2^32 - 1, as `_form_segments` computes it."""
    value = _seed(length, part, edits)
    for letter in segment:
        value = (value + ord(letter)) * _FACTOR & _MASK
    return value >> 32


def _seed(length: int, part: int, edits: int) -> int:
    return (length << 8 | part << 4 | edits) * _FACTOR & _MASK
