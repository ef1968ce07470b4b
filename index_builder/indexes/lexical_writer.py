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

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from nearline.items.documents import chunk_texts
from nearline.items.search_languages import other_languages
from nearline.store.durable import store_errors
from nearline.store.snapshot import shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.bm25_index import K1, ROWS, SCORES, STARTS, B
from retrieval.index.lexical.document_words import FieldWords, TitleWords, WordCounter
from retrieval.index.lexical.language_words import prefix_of
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.index.lexical.synonyms import write_synonyms
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.title_index import (
    POPULARITY,
    TITLE_KEYS,
    TITLE_ROWS,
    TITLE_STARTS,
    TITLE_WORDS,
)
from retrieval.index.lexical.vocabulary import FILE, FOLDER, vocabulary_schema
from retrieval.index.lexical.word_forms import is_form, write_forms

_POSTING = np.dtype([("word", "<u4"), ("row", "<i4"), ("count", "<f4")])
_SPILL_POSTINGS = 1 << 18
_BLOCK_POSTINGS = 1 << 23
_STEMS_KEPT = 256
# Forms that misspelt words are compared with: those of the words in most chunks.
_MAX_FORMS = 2_000_000


def write_lexical(
    spool: Spool,
    shards: int,
    language: str,
    folder: Path,
    advance: Callable[[int], None] = lambda chunks: None,
    *,
    weights: Mapping[str, float] | None = None,
    languages: Mapping[str, str] | None = None,
    popularity: Mapping[str, float] | None = None,
    synonyms: Sequence[SynonymRule] = (),
) -> snapshot_pb2.LexicalCard | None:
    """Writes lexical/ and shards/<nnn>/lexical/ of a snapshot.

    Args:
        spool: Documents and their chunks.
        shards: Number of shards of the snapshot.
        language: Language of the stemmer, see `retrieval.index.lexical.text_analysis.LANGUAGES`.
        folder: Folder of the snapshot.
        advance: Called with the number of chunks counted.
        weights: Weight of each searchable field, by name: title, text, and attributes. Optional;
            titles and texts count alike, and attributes are not searched.
        languages: Language of attributes with a weight that have another one, by name. Optional.
        popularity: By document id, 0..1; orders documents of the same title. Optional.
        synonyms: Synonyms of words of queries. Optional.
    Returns: The entry of the manifest; None, without any files, if no text has a word.
    Raises: InvalidRequest: an unknown language. StoreError: no space, no permission.
    """
    others = other_languages(languages or {}, language)
    analysers = list(map(analyser_of, (language, *others)))
    with (
        store_errors(folder),
        tempfile.TemporaryDirectory(prefix=".postings-", dir=folder) as spills,
    ):
        counts = _PostingCounter(analysers, weights or {}, languages or {})
        spilled = [
            counts.shard(spool, shard, Path(spills) / f"{shard:03d}", popularity, advance)
            for shard in range(shards)
        ]
        if not counts.numbers_of_stems:
            return None
        order = _write_vocabulary(folder / FOLDER, counts)
        chunks = sum(len(shard.lengths) for shard in spilled)
        # Rounded once, so that it is the same for any number of shards, whatever the weights.
        mean_length = math.fsum(chain.from_iterable(shard.lengths for shard in spilled)) / chunks
        found_in = np.array(counts.chunks, np.float64)[order]
        idf = np.log(1 + (chunks - found_in + 0.5) / (found_in + 0.5))
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        _write_forms(folder / FOLDER, counts, ranks)
        write_synonyms(folder / FOLDER, synonyms, chunks)
        for number, shard in enumerate(spilled):
            target = shard_folder(folder, number) / FOLDER
            _write_shard(target, shard, ranks, idf, mean_length or 1.0)
    return snapshot_pb2.LexicalCard(
        language=language,
        k1=K1,
        b=B,
        mean_length=mean_length or 1.0,
        chunks=chunks,
        words=len(order),
        weights=weights,
        languages=languages,
        synonym_rules=len(synonyms),
    )


@dataclass(frozen=True, slots=True)
class _PostingSpill:
    """Postings of a shard on disk, by row, and columns of its rows.

    path, titles: Postings of all fields and of titles alone. lengths: (rows,) weighted number of
    words. title_words, title_keys, popularity: See `title_index`.
    """

    path: Path
    titles: Path
    lengths: NDArray[np.float64]
    title_words: NDArray[np.uint16]
    title_keys: NDArray[np.uint64]
    popularity: NDArray[np.float32] | None


def _blocks(
    path: Path, ranks: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.int32], NDArray[np.float32]]]:
    """Yields blocks of (rank of the word, row, count) of a file of postings."""
    with path.open("rb") as stream:
        while len(block := np.fromfile(stream, _POSTING, _SPILL_POSTINGS)):
            yield ranks[block["word"]], block["row"], block["count"]


class _PostingFile:
    """Writes postings."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pending: list[tuple[int, int, float]] = []

    def add(self, row: int, counts: Mapping[int, float]) -> None:
        self._pending += [(word, row, count) for word, count in counts.items()]
        if len(self._pending) >= _SPILL_POSTINGS:
            self.flush()

    def flush(self) -> None:
        np.array(self._pending, _POSTING).tofile(self._stream)
        self._pending.clear()


class _PostingCounter:
    """Counts words and numbers them in order of appearance."""

    def __init__(
        self,
        analysers: Sequence[Analyser],
        weights: Mapping[str, float],
        languages: Mapping[str, str],
    ) -> None:
        self.numbers_of_stems: dict[str, int] = {}
        self.chunks: list[int] = []
        # Of the collection, then of each other language.
        self.languages = [
            _WordNumbers(
                analyser, prefix_of(analyser.language) if place else "", self._number_of_stem
            )
            for place, analyser in enumerate(analysers)
        ]
        words = {
            one.analyser.language: FieldWords(one.analyser, one.__getitem__)
            for one in self.languages
        }
        self._words: WordCounter[int] = WordCounter(
            *words[analysers[0].language],
            weights,
            {name: words[language] for name, language in languages.items()},
        )

    def shard(
        self,
        spool: Spool,
        shard: int,
        path: Path,
        popularity: Mapping[str, float] | None,
        advance: Callable[[int], None],
    ) -> _PostingSpill:
        """Writes the postings of a shard, chunk by chunk in row order."""
        lengths: list[float] = []
        titles: list[TitleWords[int]] = []
        popular: list[float] = []
        title_path = path.with_suffix(".titles")
        with path.open("wb") as stream, title_path.open("wb") as title_stream:
            postings, title_postings = _PostingFile(stream), _PostingFile(title_stream)
            for document in spool.shard_documents(shard):
                common = self._words.document(document.title, json.loads(document.attributes))
                in_title = dict.fromkeys(common.title.words, 1.0)
                for text in chunk_texts(document.text, document.bounds.tolist()):
                    counts, length = self._words.chunk(common, text)
                    row = len(lengths)
                    lengths.append(length)
                    titles.append(common.title)
                    for word in counts:
                        self.chunks[word] += 1
                    postings.add(row, counts)
                    title_postings.add(row, in_title)
                if popularity is not None:
                    popular += [popularity.get(document.id, 0.0)] * len(document.bounds)
                advance(len(document.bounds))
            postings.flush()
            title_postings.flush()
        most = np.iinfo(np.uint16).max
        return _PostingSpill(
            path,
            title_path,
            np.array(lengths, np.float64),
            np.array([min(title.content, most) for title in titles], np.uint16),
            np.array([title.key for title in titles], np.uint64),
            None if popularity is None else np.array(popular, np.float32),
        )

    def _number_of_stem(self, stem: str) -> int:
        """Returns the number of a word of the vocabulary."""
        number = self.numbers_of_stems.setdefault(stem, len(self.chunks))
        if number == len(self.chunks):
            self.chunks.append(0)
        return number


class _WordNumbers(dict[str, int]):
    """Caches the number of every word of a language, so that each is stemmed once."""

    def __init__(
        self, analyser: Analyser, prefix: str, number_of_stem: Callable[[str], int]
    ) -> None:
        super().__init__()
        self.analyser = analyser
        self._prefix = prefix
        self._number_of_stem = number_of_stem

    def __missing__(self, word: str) -> int:
        (stem,) = self.analyser.stems([word])
        number = self[word] = self._number_of_stem(self._prefix + stem)
        return number

    def sample_stems(self) -> dict[str, str]:
        """Returns the stems of words sampled evenly over the alphabet."""
        words = sorted(self)
        chosen = words[:: -(-len(words) // _STEMS_KEPT) or 1]
        return dict(zip(chosen, self.analyser.stems(chosen), strict=True))

    def forms(self, chunks: Sequence[int]) -> list[tuple[bytes, int]]:
        """Returns the words that somebody may have meant, with their numbers, in order.

        Args:
            chunks: Number of chunks with each word, by its number.
        """
        found = [(word.encode(), number) for word, number in self.items() if is_form(word)]
        if len(found) > _MAX_FORMS:
            found.sort(key=lambda one: -chunks[one[1]])
            del found[_MAX_FORMS:]
        return sorted(found)


def _write_vocabulary(folder: Path, counts: _PostingCounter) -> NDArray[np.int64]:
    """Writes the vocabulary; returns the numbers of the words in its order."""
    ordered = sorted((stem.encode(), number) for stem, number in counts.numbers_of_stems.items())
    order = np.array([number for _, number in ordered], np.int64)
    words = pa.array([stem for stem, _ in ordered], pa.large_binary()).cast(pa.large_string())
    chunks = pa.array(np.array(counts.chunks, np.uint32)[order])
    own, *others = [(one.analyser, one.sample_stems()) for one in counts.languages]
    schema = vocabulary_schema(*own, others)
    folder.mkdir()
    with (folder / FILE).open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_batch(pa.record_batch([words, chunks], schema=schema))
    return order


def _write_forms(folder: Path, counts: _PostingCounter, ranks: NDArray[np.int32]) -> None:
    for place, language in enumerate(counts.languages):
        target = folder / language.analyser.language if place else folder
        target.mkdir(exist_ok=True)
        forms = language.forms(counts.chunks)
        write_forms(
            target,
            [form.decode() for form, _ in forms],
            [int(ranks[number]) for _, number in forms],
        )


def _write_shard(
    folder: Path,
    spilled: _PostingSpill,
    ranks: NDArray[np.int32],
    idf: NDArray[np.float64],
    mean_length: float,
) -> None:
    """Writes the postings of all fields, with scores, those of titles, and the columns of rows."""
    folder.mkdir()
    norms = K1 * (1 - B + B * spilled.lengths / mean_length)

    def score(
        words: NDArray[np.int64], rows: NDArray[np.int32], counts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return idf[words] * (counts / (counts + norms[rows]))

    _write_columns(spilled.path, ranks, folder / STARTS, folder / ROWS, folder / SCORES, score)
    _write_columns(spilled.titles, ranks, folder / TITLE_STARTS, folder / TITLE_ROWS)
    np.save(folder / TITLE_WORDS, spilled.title_words)
    np.save(folder / TITLE_KEYS, spilled.title_keys)
    if spilled.popularity is not None:
        np.save(folder / POPULARITY, spilled.popularity)


def _write_columns(
    postings: Path,
    ranks: NDArray[np.int32],
    starts_path: Path,
    rows_path: Path,
    scores_path: Path | None = None,
    score: Callable[..., NDArray[np.float64]] | None = None,
) -> None:
    """Converts postings by row to columns by word, a range of words at a time."""
    sizes = np.zeros(len(ranks), np.int64)
    for words, _, _ in _blocks(postings, ranks):
        sizes += np.bincount(words, minlength=len(ranks))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    with contextlib.ExitStack() as files:
        rows_file = _open_array(files, rows_path, np.dtype(np.int32), int(starts[-1]))
        if scores_path is not None:
            scores_file = _open_array(files, scores_path, np.dtype(np.float32), int(starts[-1]))
        np.save(starts_path, starts)
        for low, high in _ranges(starts):
            parts = [
                (words[inside], rows[inside], counts[inside])
                for words, rows, counts in _blocks(postings, ranks)
                for inside in [(words >= low) & (words < high)]
            ]
            words, rows, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
            # Postings are ordered by row; a stable sort keeps that order within each word.
            order = np.argsort(words, kind="stable")
            rows_file.write(rows[order].astype(np.int32).tobytes())
            if score is not None:
                scores = score(words[order], rows[order], counts[order].astype(np.float64))
                scores_file.write(scores.astype(np.float32).tobytes())


def _ranges(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yields ranges of words with at most a block of postings each; a word is never split."""
    low = 0
    while low < len(starts) - 1 and starts[low] < starts[-1]:
        high = int(np.searchsorted(starts, starts[low] + _BLOCK_POSTINGS, side="right")) - 1
        high = max(high, low + 1)
        yield low, high
        low = high


def _open_array(
    files: contextlib.ExitStack, path: Path, dtype: np.dtype[Any], length: int
) -> BinaryIO:
    """Opens a .npy file of one dimension, whose numbers follow."""
    stream = files.enter_context(path.open("wb"))
    description = np.lib.format.dtype_to_descr(dtype)
    head = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, head)
    return stream
