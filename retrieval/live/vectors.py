"""The vectors of live documents: compared one by one while they are new, in graphs when many.

Rows lie in stretches. The newest is open and grows to 8,192 rows; a full one is sealed, off the
path of changes, by a graph that then holds its vectors, and two sealed ones of a size become one.
Up to 4,096 rows a scan is as fast as a graph (81 and 93 us at 384 dims, one thread), so smaller
stretches would gain nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.index.best_rows import NamesOf, rank_rows, top_k_with_ties
from retrieval.index.vectors.faiss_graph import HnswGraph, inner_products
from retrieval.index.vectors.vector_index import IndexInfo, Neighbours, SearchParams

BLOCK_ROWS = 8_192
# So many sealed stretches of a size become one, up to a size that takes ten seconds to build.
MERGE_COUNT = 2
MAX_BLOCK_ROWS = 65_536
_FIRST_CAPACITY = 64
_EF_SEARCH = 64
# A graph search takes about as long as to compare so many rows for each unit of its width. Measured
# on 4,096 to 65,536 x 384, HNSW32, widths 64 to 256, one thread: 52 to 90.
_ROWS_PER_WIDTH = 64
# A filter or deletions leave gaps among the nearest rows: so many times what should do.
_MARGIN = 2
_SLACK = 4
_KNOBS = frozenset({"ef_search", "nprobe", "exact"})


@dataclass(frozen=True, slots=True, eq=False)
class VectorBlock:
    """Rows side by side.

    start: The first. vectors: (n, d) float32, those of the graph where there is one.
    """

    start: int
    vectors: NDArray[np.float32]
    graph: HnswGraph | None = None

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + len(self.vectors)


class LiveVectors:
    """Vectors that are only added; one writer.

    Args:
        dim: Numbers in a vector.
        ef_search: Width of graph searches where a request names none; 0: a usual one.
        stretch_rows: Rows of a stretch when it is full.
    """

    def __init__(self, dim: int, ef_search: int = 0, stretch_rows: int = BLOCK_ROWS) -> None:
        self._dim = dim
        self._ef_search = ef_search or _EF_SEARCH
        self._stretch_rows = stretch_rows
        self._full: tuple[VectorBlock, ...] = ()
        self._start_open()

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return self._start + self._count

    @property
    def stretches(self) -> tuple[VectorBlock, ...]:
        """All rows as they are now."""
        if self._count == 0:
            return self._full
        return (*self._full, VectorBlock(self._start, self._open[: self._count]))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Adds (n, d) float32."""
        while len(vectors):
            self._make_room(len(vectors))
            taken = vectors[: len(self._open) - self._count]
            self._open[self._count : self._count + len(taken)] = taken
            self._count += len(taken)
            vectors = vectors[len(taken) :]
            if self._count == self._stretch_rows:
                self._full = (*self._full, VectorBlock(self._start, self._open))
                self._start_open()

    def unsealed(self) -> VectorBlock | None:
        """Returns the oldest full stretch without a graph."""
        return next((one for one in self._full if one.graph is None), None)

    def to_merge(self) -> Sequence[VectorBlock]:
        """Returns sealed stretches that one graph should hold next; none: all is well."""
        for at in range(len(self._full) - MERGE_COUNT + 1):
            group = self._full[at : at + MERGE_COUNT]
            size = len(group[0].vectors)
            even = all(len(one.vectors) == size and one.graph is not None for one in group)
            if even and size < MAX_BLOCK_ROWS and group[0].start % (MERGE_COUNT * size) == 0:
                return group
        return ()

    def seal(self, stretches: Sequence[VectorBlock], graph: HnswGraph) -> None:
        """Puts a graph in the place of such stretches; views keep what they have."""
        at = self._full.index(stretches[0])
        sealed = VectorBlock(stretches[0].start, graph.vectors(), graph)
        self._full = (*self._full[:at], sealed, *self._full[at + len(stretches) :])

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns vectors: (n, d) float32, a copy."""
        return _gather_rows(self.stretches, rows, self._dim)

    def view(self, names_of: NamesOf) -> LiveIndex:
        """Returns what is there now as an index.

        Args:
            names_of: Gives the document ids of rows.
        """
        return LiveIndex(self.stretches, self._dim, self.rows, self._ef_search, names_of)

    def _start_open(self) -> None:
        self._start = self._full[-1].stop if self._full else 0
        self._open = np.empty((min(_FIRST_CAPACITY, self._stretch_rows), self._dim), np.float32)
        self._count = 0

    def _make_room(self, rows: int) -> None:
        wanted = min(self._count + rows, self._stretch_rows)
        if wanted > len(self._open):
            capacity = min(max(wanted, 2 * len(self._open)), self._stretch_rows)
            larger = np.empty((capacity, self._dim), np.float32)
            larger[: self._count] = self._open[: self._count]
            self._open = larger


class LiveIndex:
    """A `VectorIndex` over the vectors at one moment.

    Equal scores stand in the order of document ids, and of rows within a document. A score is an
    exact inner product, whether a graph found the row or not. Widths never fail: `ef_search` holds
    for the graphs, `nprobe` for nothing.

    Args:
        stretches: All rows.
        dim, rows: How many numbers, how many rows.
        ef_search: Width where a request names none.
        names_of: Gives the document ids of rows.
    """

    def __init__(
        self,
        stretches: Sequence[VectorBlock],
        dim: int,
        rows: int,
        ef_search: int,
        names_of: NamesOf,
    ) -> None:
        self._stretches = stretches
        self._names_of = names_of
        self._info = IndexInfo(
            kind="live", dim=dim, rows=rows, knobs=_KNOBS, ef_search=ef_search, nprobe=1
        )

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = SearchParams(),  # noqa: B008  a tuple cannot change
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """Finds neighbours; see `VectorIndex.search`."""
        return self.search_planned(queries, k, params, allow)[0]

    def search_planned(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams,
        allow: NDArray[np.uint8] | None,
    ) -> tuple[Neighbours, int]:
        """Finds neighbours, and tells the widest graph search that was planned; 0: none."""
        parts = [part for part in self._parts(k, params, allow) if len(part.among)]
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for number, query in enumerate(queries):
            found = [part.nearest(query, k) for part in parts]
            if not found:
                break
            rows = np.concatenate([one for one, _ in found])
            best_rows, best_scores = rank_rows(
                rows, np.concatenate([one for _, one in found]), k, self._names_of
            )
            ids[number, : len(best_rows)] = best_rows
            scores[number, : len(best_rows)] = best_scores
        full = bool(ids[:, -1].min(initial=0) >= 0)
        return Neighbours(ids, scores, full), max((part.width for part in parts), default=0)

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns stored vectors: (n, d) float32, a copy."""
        return _gather_rows(self._stretches, rows, self._info.dim)

    def describe(self) -> IndexInfo:
        """Returns the card of the index."""
        return self._info

    def close(self) -> None:
        """Releases nothing: views share what they refer to."""

    def _parts(
        self, k: int, params: SearchParams, allow: NDArray[np.uint8] | None
    ) -> Sequence[_BlockScan]:
        ef = max(params.ef_search or self._info.ef_search, k + _SLACK)
        if allow is None:
            return [_BlockScan.whole(one, ef, exact=params.exact) for one in self._stretches]
        bits = np.unpackbits(allow, count=self._info.rows, bitorder="little").view(np.bool_)
        return [
            _BlockScan.some(one, bits[one.start : one.stop], ef, k, exact=params.exact)
            for one in self._stretches
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _BlockScan:
    """What is looked at in a stretch.

    among: Places in the stretch. allowed: (n,) whether each is among them; None: all are.
    width: Of the graph search; 0: every place is compared.
    """

    stretch: VectorBlock
    among: NDArray[np.int64]
    allowed: NDArray[np.bool_] | None
    width: int

    @classmethod
    def whole(cls, stretch: VectorBlock, ef: int, *, exact: bool) -> _BlockScan:
        among = np.arange(len(stretch.vectors))
        return cls(stretch, among, None, _width(stretch, len(among), ef, exact=exact))

    @classmethod
    def some(
        cls, stretch: VectorBlock, allowed: NDArray[np.bool_], ef: int, k: int, *, exact: bool
    ) -> _BlockScan:
        among = np.flatnonzero(allowed)
        share = max(1, len(among)) / len(allowed)
        wide = max(ef, math.ceil(_MARGIN * k / share))
        return cls(stretch, among, allowed, _width(stretch, len(among), wide, exact=exact))

    def nearest(
        self, query: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows and scores of the k best, in no order, and of some more."""
        places = self._near(query, k) if self.width else self.among
        products = inner_products(query, self.stretch.vectors, places)
        places, products = top_k_with_ties(places, products, k)
        return places + self.stretch.start, products

    def _near(self, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Returns places that hold the k best, as the graph has it.

        The graph is asked for its nearest rows whatever is allowed: where k of them are, they are
        the best that are. So a filter that goes with the topic costs a scan, and never recall.
        """
        assert self.stretch.graph is not None
        near = self.stretch.graph.search(query, self.width)
        if self.allowed is not None:
            near = near[self.allowed[near]]
        return near if len(near) >= min(k, len(self.among)) else self.among


def _width(stretch: VectorBlock, count: int, ef: int, *, exact: bool) -> int:
    scan = exact or stretch.graph is None or count <= _ROWS_PER_WIDTH * ef
    return 0 if scan else ef


def _gather_rows(
    stretches: Sequence[VectorBlock], rows: NDArray[np.int64], dim: int
) -> NDArray[np.float32]:
    vectors = np.empty((len(rows), dim), np.float32)
    of = np.searchsorted([one.start for one in stretches], rows, side="right") - 1
    for number in np.unique(of).tolist():
        mine = of == number
        stretch = stretches[number]
        vectors[mine] = stretch.vectors[rows[mine] - stretch.start]
    return vectors
