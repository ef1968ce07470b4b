"""The two legs of a shard: rows found by vector, rows found by words, and both scores of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import Unsupported
from retrieval.backends.vector_index import Neighbours, SearchParams, VectorIndex
from retrieval.filtering.planner import FilteredSearch, Matches
from retrieval.finding import Found, UnitOf, best_of_each, best_units
from retrieval.items import ItemTable
from retrieval.lexical.index import LexicalIndex
from retrieval.shard import Plan, Queries


class Wanted(NamedTuple):
    """What is looked for.

    k: Units. unit_of: The unit that a row belongs to; None: rows are the units.
    first_ask: Rows to ask for at first. matches: Rows to look among; None: all.
    """

    k: int
    params: SearchParams
    unit_of: UnitOf | None
    first_ask: int
    matches: Matches | None


class Candidates(NamedTuple):
    """Candidates of both legs for one query, side by side, by their unit; both scores are true.

    rows, scores: (m,) best row by vector and its score. lexical_rows, lexical_scores: (m,) by
    words.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    lexical_rows: NDArray[np.int64]
    lexical_scores: NDArray[np.float32]


class Legs:
    """Finds rows of one shard; blocks, and may be called from several threads.

    Args:
        index: The vectors.
        items: Documents; row r of the index is a chunk of document `items.documents_of(r)`.
        filtered: Searches the vectors under a filter.
        lexical: The words; None where the snapshot has none.
    """

    def __init__(
        self,
        index: VectorIndex,
        items: ItemTable,
        filtered: FilteredSearch,
        lexical: LexicalIndex | None,
    ) -> None:
        self._index = index
        self._items = items
        self._filtered = filtered
        self._lexical = lexical
        self._can_scan = "exact" in index.describe().knobs

    def dense(
        self, vectors: NDArray[np.float32], wanted: Wanted
    ) -> tuple[list[Found], Plan | None]:
        """Finds the best units by vector: one record per query."""
        plan: Plan | None = None

        def find(queries: NDArray[np.int64], ask: int) -> list[Found]:
            nonlocal plan
            asked = vectors if len(queries) == len(vectors) else vectors[queries]
            if wanted.matches is None:
                return _trimmed(self._best_rows(asked, ask, wanted.params))
            found, plan = self._filtered.search(asked, ask, wanted.params, wanted.matches)
            return _trimmed(found)

        if wanted.unit_of is None:
            everything = np.arange(len(vectors))
            return find(everything, min(wanted.k, self._items.chunks)), plan
        found = best_units(
            find,
            len(vectors),
            wanted.k,
            first_ask=wanted.first_ask,
            rows=self._items.chunks if wanted.matches is None else wanted.matches.count,
            unit_of=wanted.unit_of,
        )
        return found, plan

    def lexical(self, texts: Sequence[str], wanted: Wanted) -> list[Found]:
        """Finds the best units by words; only those that have one of the query's words."""
        index = self._needed_lexical()
        allow = None if wanted.matches is None else wanted.matches.chunks

        def find(queries: NDArray[np.int64], ask: int) -> list[Found]:
            return [Found(*index.search(texts[query], ask, allow)) for query in queries.tolist()]

        if wanted.unit_of is None:
            return find(np.arange(len(texts)), wanted.k)
        return best_units(
            find,
            len(texts),
            wanted.k,
            first_ask=wanted.first_ask,
            rows=self._items.chunks,
            unit_of=wanted.unit_of,
        )

    def candidates(
        self, queries: Queries, wanted: Wanted, *, documents: bool
    ) -> tuple[list[Candidates], Plan | None]:
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
    ) -> Candidates:
        counts = np.ones(len(rows), np.int64)
        if documents:
            rows, counts = self._items.rows_of_many(np.unique(self._items.documents_of(rows)))
        # Not a matrix product: BLAS rounds by the shape of the whole, and the score of a document
        # must not depend on which others stand beside it.
        dense: NDArray[np.float32] = np.einsum("ij,j->i", self._index.reconstruct(rows), vector)
        lexical = self._needed_lexical().scores(text, rows)
        if not documents:
            return Candidates(rows, dense, rows, lexical)
        at, dense_best = best_of_each(dense, counts)
        lexical_at, lexical_best = best_of_each(lexical, counts)
        return Candidates(rows[at], dense_best, rows[lexical_at], lexical_best)

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

    def _needed_lexical(self) -> LexicalIndex:
        if self._lexical is None:
            raise Unsupported(
                "the snapshot has no lexical index, so only mode dense can be served; build it "
                "from texts, without --no-lexical",
                field="options.mode",
            )
        return self._lexical


def _trimmed(found: Neighbours) -> list[Found]:
    """Gives a record per query, without the places that stayed empty."""
    if found.full:
        return [Found(*one) for one in zip(found.ids, found.scores, strict=True)]
    there = found.ids >= 0
    return [
        Found(ids[kept], scores[kept])
        for ids, scores, kept in zip(found.ids, found.scores, there, strict=True)
    ]
