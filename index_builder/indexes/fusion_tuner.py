"""Tunes the weight of the dense leg on judgements, with the fusion formula in service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from index_builder.evaluation import retrieval_metrics
from index_builder.evaluation.retrieval_metrics import JudgedDataset
from nearline.errors import InvalidRequest
from nearline.store.snapshot import shard_folder
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.search.fusion import CANDIDATES, fuse

STEPS = 20
_K = 10
_BLOCK_NUMBERS = 1 << 22
_WIDEN = 8


class TuningResult(NamedTuple):
    """The tuned weight. dense_weight: 0..1; ndcg_at_10: its mean over the queries, 0..1."""

    dense_weight: float
    ndcg_at_10: float
    queries: int


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Candidates of one query: document numbers, ascending, with the true scores of both legs."""

    documents: NDArray[np.int64]
    dense: NDArray[np.float32]
    lexical: NDArray[np.float32]


def tune(
    judged: JudgedDataset,
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    spool: Spool,
    shards: int,
    folder: Path,
    floor: float,
    advance: Callable[[int], None] = lambda queries: None,
) -> TuningResult:
    """Tries weights 0, 0.05, … 1 and returns the one with the best mean nDCG@10.

    The dense leg is an exact scan, so that the weight does not depend on the vector index. Among
    equally good weights, the middle one is taken.

    Args:
        judged: Accepted by `check_judged`; a document missing from the collection counts as not
            found.
        queries: (n, d) float32, vectors of the judged queries, in their order.
        vectors: (m, d) float32 of the collection.
        spool: Documents and their chunks.
        shards: Number of shards of the snapshot.
        folder: Folder of the snapshot, with its lexical index.
        floor: Constant of the dense leg, see `retrieval.search.fusion.fuse`.
        advance: Called with the number of queries done.
    """
    first_rows = spool.first_rows()
    grades = _grades(judged, spool, first_rows)
    lexical = _LexicalLeg(spool, shards, folder, first_rows)
    dense = _best_documents(vectors, queries, first_rows)
    by_query = []
    for number, text in enumerate(judged.queries.values()):
        documents = np.union1d(dense[number], lexical.best_documents(text))
        rows, starts = _rows_of(documents, first_rows, len(vectors))
        scores = np.asarray(vectors[rows]) @ queries[number]
        by_query.append(
            _Candidates(
                documents,
                np.maximum.reduceat(scores, starts),
                np.maximum.reduceat(lexical.scores(text, rows), starts),
            )
        )
        advance(1)
    weights = [step / STEPS for step in range(STEPS + 1)]
    means = [_mean_ndcg(by_query, grades, weight, floor) for weight in weights]
    best = [weight for weight, mean in zip(weights, means, strict=True) if mean == max(means)]
    return TuningResult(best[len(best) // 2], max(means), len(by_query))


def check_judged(judged: JudgedDataset, spool: Spool, *, embedded: bool) -> None:
    """Checks before hours of embedding that `tune` can use the judgements.

    Args:
        judged: Queries and judgements.
        spool: Documents.
        embedded: Whether a model embeds the documents, and so can embed queries.
    Raises: InvalidRequest: no relevant document is in the collection, or no model can embed the
        queries.
    """
    if not embedded:
        raise InvalidRequest(
            "the documents bring their own vectors, so no model can embed the queries for tuning; "
            "remove --tune-on",
            field="tune_on",
        )
    relevant = (
        document_id
        for grades in judged.judgements.values()
        for document_id, grade in grades.items()
        if grade > 0
    )
    if all(spool.first_row(document_id) is None for document_id in relevant):
        raise InvalidRequest(
            "none of the documents judged relevant is in the collection, so there is nothing to "
            "tune on; use a data set that judges these documents with --tune-on",
            field="tune_on",
        )


def _grades(
    judged: JudgedDataset, spool: Spool, first_rows: NDArray[np.int64]
) -> list[Mapping[str, int]]:
    """Returns the grades of each query, by the number of the document as text.

    A relevant document missing from the collection stays in the ideal ranking, as not found.
    """
    by_query: list[Mapping[str, int]] = []
    for query in judged.queries:
        grades: dict[str, int] = {}
        for document_id, grade in judged.judgements[query].items():
            row = spool.first_row(document_id)
            name = f"no {document_id}" if row is None else str(np.searchsorted(first_rows, row))
            grades[name] = grade
        by_query.append(grades)
    return by_query


def _mean_ndcg(
    by_query: Sequence[_Candidates],
    grades: Sequence[Mapping[str, int]],
    weight: float,
    floor: float,
) -> float:
    values = []
    for one, judged in zip(by_query, grades, strict=True):
        if not any(grade > 0 for grade in judged.values()):
            continue
        parts = fuse(one.dense, one.lexical, dense_weight=weight, floor=floor)
        order = np.argsort(-(parts[0] + parts[1]), kind="stable")[:_K]
        ranked = [str(document) for document in one.documents[order].tolist()]
        values.append(retrieval_metrics.ndcg(ranked, judged, _K))
    return float(np.mean(values))


def _best_documents(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], first_rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the best documents of each query by their best chunk: (n, c) int64, unordered."""
    best = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    for low, high in _blocks(first_rows, len(vectors), max(vectors.shape[1], len(queries))):
        stop = first_rows[high] if high < len(first_rows) else len(vectors)
        products = queries @ np.asarray(vectors[first_rows[low] : stop]).T
        of_block = np.maximum.reduceat(products, first_rows[low:high] - first_rows[low], axis=1)
        scores = np.concatenate((best_scores, of_block), axis=1)
        numbers = np.broadcast_to(np.arange(low, high), of_block.shape)
        documents = np.concatenate((best, numbers), axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
        best = np.take_along_axis(documents, order, axis=1)
        best_scores = np.take_along_axis(scores, order, axis=1)
    return best


def _blocks(first_rows: NDArray[np.int64], rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Yields runs of documents with about as many rows as fit; a document is never split."""
    block_rows = max(1, _BLOCK_NUMBERS // width)
    low = 0
    while low < len(first_rows):
        # A document that ends beyond the block goes into the next block, unless it is the first
        # document.
        high = int(np.searchsorted(first_rows, first_rows[low] + block_rows, side="right")) - 1
        high = len(first_rows) if rows - first_rows[low] <= block_rows else max(low + 1, high)
        yield low, high
        low = high


def _rows_of(
    documents: NDArray[np.int64], first_rows: NDArray[np.int64], rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows of all chunks of documents, and the position of each document's first."""
    counts = np.diff(np.append(first_rows, rows))[documents]
    starts = np.cumsum(counts) - counts
    every: NDArray[np.int64] = np.repeat(first_rows[documents] - starts, counts)
    return every + np.arange(len(every)), starts


class _LexicalLeg:
    """The lexical leg over all shards, in rows of the collection."""

    def __init__(
        self, spool: Spool, shards: int, folder: Path, first_rows: NDArray[np.int64]
    ) -> None:
        vocabulary = Vocabulary.load(folder)
        self._first_rows = first_rows
        self._rows = [spool.shard_chunk_rows(shard) for shard in range(shards)]
        self._indexes = [
            LexicalIndex.load(shard_folder(folder, shard), vocabulary, len(rows))
            for shard, rows in enumerate(self._rows)
        ]
        # The shard of each row of the collection, and its row in the shard.
        self._shard = np.empty(spool.chunks, np.int64)
        self._shard_row = np.empty(spool.chunks, np.int64)
        for shard, rows in enumerate(self._rows):
            self._shard[rows] = shard
            self._shard_row[rows] = np.arange(len(rows))

    def best_documents(self, text: str) -> NDArray[np.int64]:
        """Returns the best documents by their best chunk."""
        documents, scores = [], []
        for index, rows in zip(self._indexes, self._rows, strict=True):
            numbers, best = self._best_of_shard(index, rows, text)
            documents.append(numbers)
            scores.append(best)
        order = np.argsort(-np.concatenate(scores), kind="stable")[:CANDIDATES]
        return np.concatenate(documents)[order]

    def _best_of_shard(
        self, index: LexicalIndex, rows: NDArray[np.int64], text: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        limit = _WIDEN * CANDIDATES
        while True:
            found, scores = index.search(text, limit)
            documents = np.searchsorted(self._first_rows, rows[found], side="right") - 1
            firsts = np.sort(np.unique(documents, return_index=True)[1])[:CANDIDATES]
            if len(firsts) == CANDIDATES or len(found) < limit:
                return documents[firsts], scores[firsts]
            limit *= _WIDEN

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows of the collection: (n,) float32."""
        scores = np.zeros(len(rows), np.float32)
        for shard, index in enumerate(self._indexes):
            in_shard = self._shard[rows] == shard
            scores[in_shard] = index.scores(text, self._shard_row[rows[in_shard]])
        return scores
