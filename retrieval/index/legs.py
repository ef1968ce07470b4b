"""The two legs of a shard: rows found by vector, rows found by words, and both scores of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import Unsupported
from retrieval.index.filtering.planner import Matches
from retrieval.index.protocols import AttributeValues, Documents, WordIndex
from retrieval.index.tombstones import search_alive
from retrieval.index.top_units import TopRows, UnitOf, best_per_run, find_top_units
from retrieval.index.vectors.vector_index import Neighbours, SearchParams, VectorIndex
from retrieval.protocols.shard import ShardFilterPlan, ShardQueries


class LegOptions(NamedTuple):
    """What is looked for.

    k: Units. unit_of: The unit that a row belongs to; None: rows are the units.
    first_ask: Rows to ask for at first. matches: Rows that match a filter and are alive; None:
    there is no filter. alive: Rows that are not hidden; None: none is.
    """

    k: int
    params: SearchParams
    unit_of: UnitOf | None
    first_ask: int
    matches: Matches | None
    alive: Matches | None = None

    @property
    def among(self) -> Matches | None:
        """Rows to look among; None: all."""
        return self.alive if self.matches is None else self.matches


class CandidateRows(NamedTuple):
    """Candidates of both legs for one query, side by side, by their unit; both scores are true.

    rows, scores: (m,) best row by vector and its score. lexical_rows, lexical_scores: (m,) by
    words.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    lexical_rows: NDArray[np.int64]
    lexical_scores: NDArray[np.float32]


class Legs:
    """Finds rows of one part; blocks, and may be called from several threads.

    Args:
        index: The vectors.
        items: Documents; row r of the index is a chunk of document `items.documents_of(r)`.
        attributes: Knows how the vectors are searched under a filter.
        words: The words; None where the snapshot has none.
    """

    def __init__(
        self,
        index: VectorIndex,
        items: Documents,
        attributes: AttributeValues,
        words: WordIndex | None,
    ) -> None:
        self._index = index
        self._items = items
        self._attributes = attributes
        self._words = words
        self._can_scan = "exact" in index.describe().knobs

    def dense(
        self, vectors: NDArray[np.float32], wanted: LegOptions
    ) -> tuple[list[TopRows], ShardFilterPlan | None]:
        """Finds the best units by vector: one record per query."""
        plan: ShardFilterPlan | None = None
        among, filtered = wanted.among, self._attributes.filtered
        # At least one: engines have no place for less.
        rows = self._items.chunks if among is None else max(1, among.count)

        def find(queries: NDArray[np.int64], ask: int) -> list[TopRows]:
            nonlocal plan
            asked = vectors if len(queries) == len(vectors) else vectors[queries]
            if among is None:
                return _drop_empty(self._best_rows(asked, ask, wanted.params))
            if wanted.matches is None:
                alive = search_alive(self._index, filtered, asked, ask, wanted.params, among)
                return _drop_empty(alive)
            found, plan = filtered.search(asked, ask, wanted.params, among)
            return _drop_empty(found)

        if wanted.unit_of is None:
            everything = np.arange(len(vectors))
            return find(everything, min(wanted.k, rows)), plan
        found = find_top_units(
            find,
            len(vectors),
            wanted.k,
            first_ask=wanted.first_ask,
            rows=rows,
            unit_of=wanted.unit_of,
        )
        return found, plan

    def lexical(self, texts: Sequence[str], wanted: LegOptions) -> list[TopRows]:
        """Finds the best units by words; only those that have one of the query's words."""
        words = self._needed_words()
        among = wanted.among
        allow = None if among is None else among.chunks

        def find(queries: NDArray[np.int64], ask: int) -> list[TopRows]:
            return [TopRows(*words.search(texts[query], ask, allow)) for query in queries.tolist()]

        if wanted.unit_of is None:
            return find(np.arange(len(texts)), wanted.k)
        return find_top_units(
            find,
            len(texts),
            wanted.k,
            first_ask=wanted.first_ask,
            rows=self._items.chunks,
            unit_of=wanted.unit_of,
        )

    def candidates(
        self, queries: ShardQueries, wanted: LegOptions, *, documents: bool
    ) -> tuple[list[CandidateRows], ShardFilterPlan | None]:
        """Finds the candidates of both legs, k of each, with both scores of every one.

        Args:
            queries: As many texts as vectors.
            wanted: What is looked for in each leg.
            documents: A candidate is a document with the best of all its chunks, else a chunk.
        """
        dense, plan = self.dense(queries.vectors, wanted)
        lexical = self.lexical(queries.texts, wanted)
        found = [
            self._completed(vector, text, np.union1d(one.rows, other.rows), documents=documents)
            for vector, text, one, other in zip(
                queries.vectors, queries.texts, dense, lexical, strict=True
            )
        ]
        return found, plan

    def _completed(
        self, vector: NDArray[np.float32], text: str, rows: NDArray[np.int64], *, documents: bool
    ) -> CandidateRows:
        counts = np.ones(len(rows), np.int64)
        if documents:
            rows, counts = self._items.rows_of_many(np.unique(self._items.documents_of(rows)))
        # Not a matrix product: BLAS rounds by the shape of the whole, and the score of a document
        # must not depend on which others stand beside it.
        dense: NDArray[np.float32] = np.einsum("ij,j->i", self._index.reconstruct(rows), vector)
        lexical = self._needed_words().scores(text, rows)
        if not documents:
            return CandidateRows(rows, dense, rows, lexical)
        at, dense_best = best_per_run(dense, counts)
        lexical_at, lexical_best = best_per_run(lexical, counts)
        return CandidateRows(rows[at], dense_best, rows[lexical_at], lexical_best)

    def _best_rows(self, vectors: NDArray[np.float32], k: int, params: SearchParams) -> Neighbours:
        """Finds k rows per query; by scanning where the index came back short of them."""
        found = self._index.search(vectors, k, params)
        if found.full or params.exact or params.nprobe is not None or not self._can_scan:
            return found
        short = found.ids[:, -1] < 0
        if short.any():
            exact = self._index.search(vectors[short], k, params._replace(exact=True))
            found.ids[short], found.scores[short] = exact.ids, exact.scores
        return found

    def _needed_words(self) -> WordIndex:
        if self._words is None:
            raise Unsupported(
                "the snapshot has no lexical index, so only mode dense can be served; build it "
                "from texts, without --no-lexical",
                field="options.mode",
            )
        return self._words


def _drop_empty(found: Neighbours) -> list[TopRows]:
    """Returns a record per query, without the places that stayed empty."""
    if found.full:
        return [TopRows(*one) for one in zip(found.ids, found.scores, strict=True)]
    there = found.ids >= 0
    return [
        TopRows(ids[kept], scores[kept])
        for ids, scores, kept in zip(found.ids, found.scores, there, strict=True)
    ]
