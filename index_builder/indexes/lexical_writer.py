"""Writes the lexical index of a snapshot: counts words shard by shard, then scores them.

BM25 as in Lucene, precomputed for every word of every chunk:
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b l / L))
N chunks, n of them with the word; the word occurs f times in a chunk of l words; L is the mean l.

Source: Kamphuis et al. 2020, "Which BM25 Do You Mean?", row "Lucene (accurate)"; precomputed scores
as in Lù 2024, "BM25S". While the library bm25s keeps all texts as lists of numbers, this writer
spills to disk; memory holds the vocabulary, 4 bytes per chunk of a shard, and a block of postings.
`retrieval.live.words` scores live items by the same formula.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from nearline.items.documents import text_to_index
from nearline.store.durable import store_errors
from nearline.store.snapshot import shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.bm25_index import K1, ROWS, SCORES, STARTS, B
from retrieval.index.lexical.text_analysis import Analyser, split_words
from retrieval.index.lexical.vocabulary import FILE, FOLDER, vocabulary_schema

_POSTING = np.dtype([("word", "<u4"), ("row", "<i4"), ("count", "<u4")])
_SPILL_POSTINGS = 1 << 18
_BLOCK_POSTINGS = 1 << 23
_STOP_WORD = -1
_STEMS_KEPT = 256


def write_lexical(
    spool: Spool,
    shards: int,
    language: str,
    folder: Path,
    advance: Callable[[int], None] = lambda chunks: None,
) -> snapshot_pb2.LexicalCard | None:
    """Writes lexical/ and shards/<nnn>/lexical/ of a snapshot.

    Like its embedding, the index of a chunk includes the title of its document.

    Args:
        spool: Documents and their chunks.
        shards: Number of shards of the snapshot.
        language: Language of the stemmer, see `retrieval.index.lexical.text_analysis.LANGUAGES`.
        folder: Folder of the snapshot.
        advance: Called with the number of chunks counted.
    Returns: The entry of the manifest; None, without any files, if no text has a word.
    Raises: InvalidRequest: an unknown language. StoreError: no space, no permission.
    """
    analyser = analyser_of(language)
    with (
        store_errors(folder),
        tempfile.TemporaryDirectory(prefix=".postings-", dir=folder) as spills,
    ):
        counts = _PostingCounter(analyser)
        spilled = [
            counts.shard(spool, shard, Path(spills) / f"{shard:03d}", advance)
            for shard in range(shards)
        ]
        if not counts.numbers_of_stems:
            return None
        order = _write_vocabulary(folder / FOLDER, counts, analyser)
        chunks = sum(len(shard.lengths) for shard in spilled)
        mean_length = sum(int(shard.lengths.sum()) for shard in spilled) / chunks
        found_in = np.array(counts.chunks, np.float64)[order]
        idf = np.log(1 + (chunks - found_in + 0.5) / (found_in + 0.5))
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        for number, shard in enumerate(spilled):
            _write_shard(shard_folder(folder, number) / FOLDER, shard, ranks, idf, mean_length)
    return snapshot_pb2.LexicalCard(
        language=language,
        k1=K1,
        b=B,
        mean_length=mean_length,
        chunks=chunks,
        words=len(order),
    )


@dataclass(frozen=True, slots=True)
class _PostingSpill:
    """Postings of a shard on disk, by row; lengths: (rows,) number of words in each chunk."""

    path: Path
    lengths: NDArray[np.int64]

    def blocks(self, ranks: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.integer[Any]], ...]]:
        """Yields blocks of (rank of the word, row, count)."""
        with self.path.open("rb") as stream:
            while len(block := np.fromfile(stream, _POSTING, _SPILL_POSTINGS)):
                yield ranks[block["word"]], block["row"], block["count"]


class _PostingCounter:
    """Counts words and numbers them in order of appearance."""

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser
        self._numbers = _WordNumbers(self._number)
        self.numbers_of_stems: dict[str, int] = {}
        self.chunks: list[int] = []

    def shard(
        self, spool: Spool, shard: int, path: Path, advance: Callable[[int], None]
    ) -> _PostingSpill:
        """Writes the postings of a shard, chunk by chunk in row order."""
        lengths: list[int] = []
        pending: list[tuple[int, int, int]] = []
        with path.open("wb") as stream:
            for document in spool.shard_documents(shard):
                for start, end in document.bounds.tolist():
                    found = Counter(
                        self._words(text_to_index(document.title, document.text[start:end]))
                    )
                    row = len(lengths)
                    lengths.append(found.total())
                    for word, count in found.items():
                        self.chunks[word] += 1
                        pending.append((word, row, count))
                advance(len(document.bounds))
                if len(pending) >= _SPILL_POSTINGS:
                    np.array(pending, _POSTING).tofile(stream)
                    pending.clear()
            np.array(pending, _POSTING).tofile(stream)
        return _PostingSpill(path, np.array(lengths, np.int64))

    def sample_stems(self) -> dict[str, str]:
        """Returns the stems of words sampled evenly over the alphabet."""
        words = sorted(word for word, number in self._numbers.items() if number != _STOP_WORD)
        chosen = words[:: -(-len(words) // _STEMS_KEPT)]
        return dict(zip(chosen, self._analyser.stems(chosen), strict=True))

    def _words(self, text: str) -> list[int]:
        numbers = map(self._numbers.__getitem__, split_words(text))
        return [number for number in numbers if number != _STOP_WORD]

    def _number(self, word: str) -> int:
        """Returns the number of a word."""
        if word in self._analyser.stop_words:
            return _STOP_WORD
        (stem,) = self._analyser.stems([word])
        number = self.numbers_of_stems.setdefault(stem, len(self.chunks))
        if number == len(self.chunks):
            self.chunks.append(0)
        return number


class _WordNumbers(dict[str, int]):
    """Caches the number of every word, so that each is stemmed once."""

    def __init__(self, number: Callable[[str], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, word: str) -> int:
        number = self[word] = self._number(word)
        return number


def _write_vocabulary(
    folder: Path, counts: _PostingCounter, analyser: Analyser
) -> NDArray[np.int64]:
    """Writes the vocabulary; returns the numbers of the words in its order."""
    ordered = sorted((stem.encode(), number) for stem, number in counts.numbers_of_stems.items())
    order = np.array([number for _, number in ordered], np.int64)
    words = pa.array([stem for stem, _ in ordered], pa.large_binary()).cast(pa.large_string())
    chunks = pa.array(np.array(counts.chunks, np.uint32)[order])
    schema = vocabulary_schema(analyser, counts.sample_stems())
    folder.mkdir()
    with (folder / FILE).open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_batch(pa.record_batch([words, chunks], schema=schema))
    return order


def _write_shard(
    folder: Path,
    spilled: _PostingSpill,
    ranks: NDArray[np.int32],
    idf: NDArray[np.float64],
    mean_length: float,
) -> None:
    """Converts postings by row to columns by word, a range of words at a time."""
    folder.mkdir()
    sizes = np.zeros(len(idf), np.int64)
    for words, _, _ in spilled.blocks(ranks):
        sizes += np.bincount(words, minlength=len(idf))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    norms = K1 * (1 - B + B * spilled.lengths / mean_length)
    with (folder / STARTS).open("wb") as stream:
        _write_head(stream, starts.dtype, len(starts))
        stream.write(starts.tobytes())
    with (folder / ROWS).open("wb") as rows_file, (folder / SCORES).open("wb") as scores_file:
        _write_head(rows_file, np.dtype(np.int32), int(starts[-1]))
        _write_head(scores_file, np.dtype(np.float32), int(starts[-1]))
        for low, high in _ranges(starts):
            parts = [
                (words[inside], rows[inside], counts[inside])
                for words, rows, counts in spilled.blocks(ranks)
                for inside in [(words >= low) & (words < high)]
            ]
            words, rows, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
            # Postings are ordered by row; a stable sort keeps that order within each word.
            order = np.argsort(words, kind="stable")
            words, rows, counts = words[order], rows[order], counts[order].astype(np.float64)
            rows_file.write(rows.astype(np.int32).tobytes())
            scores = idf[words] * (counts / (counts + norms[rows]))
            scores_file.write(scores.astype(np.float32).tobytes())


def _ranges(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields ranges of words with at most a block of postings each; a word is never split."""
    low = 0
    while low < len(starts) - 1 and starts[low] < starts[-1]:
        high = int(np.searchsorted(starts, starts[low] + _BLOCK_POSTINGS, side="right")) - 1
        high = max(high, low + 1)
        yield low, high
        low = high


def _write_head(stream: BinaryIO, dtype: np.dtype[np.generic], length: int) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    head = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, head)
