"""The dense and the lexical leg of a segment, and the candidates of hybrid searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import Unsupported
from retrieval.index.filtering.planner import Matches, gpu_plan
from retrieval.index.gpu.device import NotOnDevice
from retrieval.index.protocols import Documents, WordIndex
from retrieval.index.tombstones import search_alive
from retrieval.index.top_units import TopRows, UnitOf, best_per_run, find_top_units
from retrieval.index.vectors.vector_index import Neighbours, SearchParams, VectorIndex
from retrieval.protocols.shard import ShardFilterPlan, ShardQueries

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without Arrow.
    from retrieval.index.attributes import SegmentAttributes
    from retrieval.index.gpu.gpu_pool import GpuSearcher, PlacedIndex

# The CPU compares so few matches before a GPU would have received the query.
_FEW_MATCHES = 4_096


class LegOptions(NamedTuple):
    """Options of a search in one leg.

    k: Number of units (documents, chunks or groups) to return. unit_of: Maps rows to units; None if
    each row is a unit.
    first_limit: Rows to search for at first. matches: Rows that match the filter and are alive;
    None without a filter. alive: Rows that are not hidden; None if no row is hidden. most_units:
    See `find_top_units`.
    """

    k: int
    params: SearchParams
    unit_of: UnitOf | None
    first_limit: int
    matches: Matches | None
    alive: Matches | None = None
    most_units: Callable[[], int] | None = None

    @property
    def among(self) -> Matches | None:
        """The rows to search; None means all rows."""
        return self.alive if self.matches is None else self.matches


class DenseRows(NamedTuple):
    """The best units of each query by vector.

    plan: How the filter was executed; None without a filter. gpu: Whether a GPU answered. fallback:
    Why the CPU answered although the vectors are on a GPU; empty if it did not.
    """

    found: list[TopRows]
    plan: ShardFilterPlan | None = None
    gpu: bool = False
    fallback: str = ""


class CandidateRows(NamedTuple):
    """Hybrid candidates of one query, one per unit, with exact scores of both legs.

    rows, scores: (m,) best row by vector and its score.
    lexical_rows, lexical_scores: (m,) best row by words and its BM25 score.
    title_levels: (m,) how well the title matches the query; see `retrieval.index.lexical`.
    title_score: What each level added to the score by which the lexical leg chose.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    lexical_rows: NDArray[np.int64]
    lexical_scores: NDArray[np.float32]
    title_levels: NDArray[np.float32]
    title_score: float


class Legs:
    """Finds rows of one segment; blocks, and may be called from several threads.

    Args:
        index: The vectors.
        items: Documents; row r of the index is a chunk of document `items.documents_of(r)`.
        attributes: Searches the vectors under a filter.
        words: The word index; None if the snapshot has none.
        gpu: The place of the vectors on GPUs. Optional; while they cannot answer, `index` does.
    """

    def __init__(
        self,
        index: VectorIndex,
        items: Documents,
        attributes: SegmentAttributes,
        words: WordIndex | None,
        gpu: PlacedIndex | None = None,
    ) -> None:
        self._index = index
        self._gpu = gpu
        self._items = items
        self._attributes = attributes
        self._words = words
        self._can_scan = "exact" in index.describe().knobs

    def dense(self, vectors: NDArray[np.float32], options: LegOptions) -> DenseRows:
        """Returns the best units by vector."""
        plan: ShardFilterPlan | None = None
        gpu, fallback = self._gpu_for(options)
        among = options.among
        # Engines require at least one result.
        rows = self._items.chunks if among is None else max(1, among.count)

        def find(queries: NDArray[np.int64], limit: int) -> list[TopRows]:
            nonlocal plan, gpu, fallback
            selected = vectors if len(queries) == len(vectors) else vectors[queries]
            if gpu is not None:
                try:
                    near, left = gpu.search(selected, limit, among, exact=options.params.exact)
                except NotOnDevice as error:
                    gpu, fallback = None, str(error) if error.fault else ""
                else:
                    if options.matches is not None:
                        plan = gpu_plan(options.matches.count, self._items.chunks)
                    if len(left):
                        gpu = None
                        rest, plan = self._find_on_cpu(selected[left], limit, options)
                        near.ids[left], near.scores[left] = rest.ids, rest.scores
                    return _drop_empty(near)
            found, plan = self._find_on_cpu(selected, limit, options)
            return _drop_empty(found)

        if options.unit_of is None:
            found = find(np.arange(len(vectors)), min(options.k, rows))
        else:
            found = find_top_units(
                find,
                len(vectors),
                options.k,
                first_limit=options.first_limit,
                rows=rows,
                unit_of=options.unit_of,
                most_units=options.most_units,
            )
        return DenseRows(found, plan, gpu is not None, fallback)

    def _gpu_for(self, options: LegOptions) -> tuple[GpuSearcher | None, str]:
        """Returns what may answer on GPUs, and why there is nothing although there should be.

        Widths and few matches are for the CPU.
        """
        params, matches = options.params, options.matches
        if self._gpu is None or params.ef_search is not None or params.nprobe is not None:
            return None, ""
        gpu = self._gpu.searcher
        if gpu is None:
            return None, self._gpu.fault
        if gpu.exact:
            few = matches is not None and matches.count <= _FEW_MATCHES
            return None if few else gpu, ""
        return None if params.exact or matches is not None else gpu, ""

    def _find_on_cpu(
        self, vectors: NDArray[np.float32], limit: int, options: LegOptions
    ) -> tuple[Neighbours, ShardFilterPlan | None]:
        among, filtered, params = options.among, self._attributes.filtered, options.params
        if among is None:
            return self._best_rows(vectors, limit, params), None
        if options.matches is None:
            return search_alive(self._index, filtered, vectors, limit, params, among), None
        return filtered.search(vectors, limit, params, among)

    def lexical(self, texts: Sequence[str], options: LegOptions) -> list[TopRows]:
        """Returns the best units by words; only units with a word of the query."""
        words = self.needed_words()
        among = options.among
        allow = None if among is None else among.chunks

        def find(queries: NDArray[np.int64], limit: int) -> list[TopRows]:
            return [
                TopRows(*words.search(texts[query], limit, allow)) for query in queries.tolist()
            ]

        if options.unit_of is None:
            return find(np.arange(len(texts)), options.k)
        return find_top_units(
            find,
            len(texts),
            options.k,
            first_limit=options.first_limit,
            rows=self._items.chunks,
            unit_of=options.unit_of,
            most_units=options.most_units,
        )

    def candidates(
        self, queries: ShardQueries, options: LegOptions, *, documents: bool
    ) -> tuple[list[CandidateRows], DenseRows]:
        """Returns the k best candidates of each leg, each with its scores in both legs.

        Args:
            queries: Queries, each with a text and a vector.
            options: Options of each leg.
            documents: Whether candidates are documents, each scored by the best of all its
                chunks, instead of chunks.
        Returns: The candidates, and the result of the dense leg.
        """
        dense = self.dense(queries.vectors, options)
        lexical = self.lexical(queries.texts, options)
        found = [
            self._completed(vector, text, np.union1d(one.rows, other.rows), documents=documents)
            for vector, text, one, other in zip(
                queries.vectors, queries.texts, dense.found, lexical, strict=True
            )
        ]
        return found, dense

    def _completed(
        self, vector: NDArray[np.float32], text: str, rows: NDArray[np.int64], *, documents: bool
    ) -> CandidateRows:
        counts = np.ones(len(rows), np.int64)
        if documents:
            rows, counts = self._items.rows_of_many(np.unique(self._items.documents_of(rows)))
        # Not a matrix product: BLAS rounds differently for different shapes, and the score of a
        # document must not depend on the other candidates.
        dense: NDArray[np.float32] = np.einsum("ij,j->i", self._index.reconstruct(rows), vector)
        words = self.needed_words()
        lexical = words.scores(text, rows)
        levels, level_score = words.title_levels(text, rows), words.title_score(text)
        if not documents:
            return CandidateRows(rows, dense, rows, lexical, levels, level_score)
        at, dense_best = best_per_run(dense, counts)
        lexical_at, lexical_best = best_per_run(lexical, counts)
        # All chunks of a document have its title.
        return CandidateRows(
            rows[at], dense_best, rows[lexical_at], lexical_best, levels[at], level_score
        )

    def _best_rows(self, vectors: NDArray[np.float32], k: int, params: SearchParams) -> Neighbours:
        """Finds k rows per query; if the index returns fewer for a query, all rows are compared."""
        found = self._index.search(vectors, k, params)
        if found.full or params.exact or params.nprobe is not None or not self._can_scan:
            return found
        short = found.ids[:, -1] < 0
        if short.any():
            exact = self._index.search(vectors[short], k, params._replace(exact=True))
            found.ids[short], found.scores[short] = exact.ids, exact.scores
        return found

    def needed_words(self) -> WordIndex:
        """Returns the word index; raises Unsupported if there is none."""
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
    present = found.ids >= 0
    return [
        TopRows(ids[kept], scores[kept])
        for ids, scores, kept in zip(found.ids, found.scores, present, strict=True)
    ]
