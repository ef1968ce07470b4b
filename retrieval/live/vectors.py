"""The vectors of live documents: scanned while they are new, in graphs once there are many.

Rows are stored in blocks. The newest block is open and grows to 4,096 rows. A full block is sealed
in the background: its vectors are added to a copy of the graph before it, until that has 65,536
rows. So each row is added to a graph once. Up to 4,096 rows a scan is as fast as a graph (81 and 93
us at 384 dims, one thread), so smaller blocks would gain nothing.
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

BLOCK_ROWS = 4_096
# Most rows of a graph. Each growth copies it: 0.1 GB with 384 dims.
MAX_GRAPH_ROWS = 65_536
_FIRST_CAPACITY = 64
_EF_SEARCH = 64
# Rows that can be scanned in the time of a graph search, per unit of its width. Measured on 4,096
# to 65,536 x 384, HNSW32, widths 64 to 256, one thread: 52 to 90.
_ROWS_PER_WIDTH = 64
# Filters and deletions leave gaps among the nearest rows: widen searches by this factor.
_MARGIN = 2
_SLACK = 4
_KNOBS = frozenset({"ef_search", "nprobe", "exact"})


@dataclass(frozen=True, slots=True, eq=False)
class VectorBlock:
    """A block of consecutive rows.

    start: The first row. vectors: (n, d) float32; stored in the graph if there is one.
    """

    start: int
    vectors: NDArray[np.float32]
    graph: HnswGraph | None = None

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + len(self.vectors)


class LiveVectors:
    """An append-only collection of vectors; one writer.

    Args:
        dim: Dimension of the vectors.
        ef_search: Default width of graph searches; 0 uses 64.
        block_rows: Rows of a full block.
    """

    def __init__(self, dim: int, ef_search: int = 0, block_rows: int = BLOCK_ROWS) -> None:
        self._dim = dim
        self._ef_search = ef_search or _EF_SEARCH
        self._block_rows = block_rows
        self._full: tuple[VectorBlock, ...] = ()
        self._start_open()

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return self._start + self._count

    @property
    def blocks(self) -> tuple[VectorBlock, ...]:
        """All current rows."""
        if self._count == 0:
            return self._full
        return (*self._full, VectorBlock(self._start, self._open[: self._count]))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Adds (n, d) float32 vectors."""
        while len(vectors):
            self._make_room(len(vectors))
            fitting = vectors[: len(self._open) - self._count]
            self._open[self._count : self._count + len(fitting)] = fitting
            self._count += len(fitting)
            vectors = vectors[len(fitting) :]
            if self._count == self._block_rows:
                self._full = (*self._full, VectorBlock(self._start, self._open))
                self._start_open()

    def unsealed(self) -> VectorBlock | None:
        """Returns the oldest full block without a graph; None if there is none."""
        return next((one for one in self._full if one.graph is None), None)

    @property
    def unsealed_rows(self) -> int:
        """Number of rows in full blocks without a graph."""
        return sum(len(one.vectors) for one in self._full if one.graph is None)

    def next_to_seal(self) -> Sequence[VectorBlock]:
        """Returns the blocks that the next graph should replace; empty if there are none.

        Returns: The oldest full block without a graph, after the block before it if the graph of
            that one can grow.
        """
        fresh = self.unsealed()
        if fresh is None:
            return ()
        at = self._full.index(fresh)
        before = self._full[at - 1] if at else None
        if before is None or fresh.stop - before.start > MAX_GRAPH_ROWS:
            return (fresh,)
        return (before, fresh)

    def seal(self, blocks: Sequence[VectorBlock], graph: HnswGraph) -> None:
        """Replaces blocks by one graph of their vectors; existing views are unaffected."""
        at = self._full.index(blocks[0])
        sealed = VectorBlock(blocks[0].start, graph.vectors(), graph)
        self._full = (*self._full[:at], sealed, *self._full[at + len(blocks) :])

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns vectors: (n, d) float32, a copy."""
        return _gather_rows(self.blocks, rows, self._dim)

    def view(self, names_of: NamesOf) -> LiveIndex:
        """Returns an index of the current vectors.

        Args:
            names_of: Returns the document ids of rows.
        """
        return LiveIndex(self.blocks, self._dim, self.rows, self._ef_search, names_of)

    def _start_open(self) -> None:
        self._start = self._full[-1].stop if self._full else 0
        self._open = np.empty((min(_FIRST_CAPACITY, self._block_rows), self._dim), np.float32)
        self._count = 0

    def _make_room(self, rows: int) -> None:
        needed = min(self._count + rows, self._block_rows)
        if needed > len(self._open):
            capacity = min(max(needed, 2 * len(self._open)), self._block_rows)
            larger = np.empty((capacity, self._dim), np.float32)
            larger[: self._count] = self._open[: self._count]
            self._open = larger


class LiveIndex:
    """A `VectorIndex` over a snapshot of the live vectors.

    Equal scores are ordered by document id, then by row. Scores are exact inner products, whether
    or not a graph found the row. Widths are always accepted: `ef_search` applies to the graphs,
    `nprobe` has no effect.

    Args:
        blocks: All rows.
        dim, rows: Dimension of the vectors, and their number.
        ef_search: Default width.
        names_of: Returns the document ids of rows.
    """

    def __init__(
        self,
        blocks: Sequence[VectorBlock],
        dim: int,
        rows: int,
        ef_search: int,
        names_of: NamesOf,
    ) -> None:
        self._blocks = blocks
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
        """Finds neighbours; also returns the largest width of a graph search, or 0."""
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
        return _gather_rows(self._blocks, rows, self._info.dim)

    def describe(self) -> IndexInfo:
        """Returns the properties of the index."""
        return self._info

    def close(self) -> None:
        """Does nothing: views share their data."""

    def _parts(
        self, k: int, params: SearchParams, allow: NDArray[np.uint8] | None
    ) -> Sequence[_BlockScan]:
        ef = max(params.ef_search or self._info.ef_search, k + _SLACK)
        if allow is None:
            return [_BlockScan.whole(one, ef, exact=params.exact) for one in self._blocks]
        bits = np.unpackbits(allow, count=self._info.rows, bitorder="little").view(np.bool_)
        return [
            _BlockScan.some(one, bits[one.start : one.stop], ef, k, exact=params.exact)
            for one in self._blocks
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _BlockScan:
    """The search of one block.

    among: The positions to search. allowed: (n,) bool, whether each position may be found; None if
    all may. width: Width of the graph search; 0 compares every position.
    """

    block: VectorBlock
    among: NDArray[np.int64]
    allowed: NDArray[np.bool_] | None
    width: int

    @classmethod
    def whole(cls, block: VectorBlock, ef: int, *, exact: bool) -> _BlockScan:
        among = np.arange(len(block.vectors))
        return cls(block, among, None, _width(block, len(among), ef, exact=exact))

    @classmethod
    def some(
        cls, block: VectorBlock, allowed: NDArray[np.bool_], ef: int, k: int, *, exact: bool
    ) -> _BlockScan:
        among = np.flatnonzero(allowed)
        share = max(1, len(among)) / len(allowed)
        wide = max(ef, math.ceil(_MARGIN * k / share))
        return cls(block, among, allowed, _width(block, len(among), wide, exact=exact))

    def nearest(
        self, query: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows and scores of at least the k best rows, unordered."""
        places = self._near(query, k) if self.width else self.among
        products = inner_products(query, self.block.vectors, places)
        places, products = top_k_with_ties(places, products, k)
        return places + self.block.start, products

    def _near(self, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Returns positions that include the k best according to the graph.

        The graph search ignores the filter: if k of the rows found are allowed, they are the best
        allowed ones. Otherwise all allowed rows are scanned. So a filter that correlates with the
        topic costs a scan, but no recall.
        """
        assert self.block.graph is not None
        near = self.block.graph.search(query, self.width)
        if self.allowed is not None:
            near = near[self.allowed[near]]
        return near if len(near) >= min(k, len(self.among)) else self.among


def _width(block: VectorBlock, count: int, ef: int, *, exact: bool) -> int:
    scan = exact or block.graph is None or count <= _ROWS_PER_WIDTH * ef
    return 0 if scan else ef


def _gather_rows(
    blocks: Sequence[VectorBlock], rows: NDArray[np.int64], dim: int
) -> NDArray[np.float32]:
    vectors = np.empty((len(rows), dim), np.float32)
    block_of = np.searchsorted([one.start for one in blocks], rows, side="right") - 1
    for number in np.unique(block_of).tolist():
        mine = block_of == number
        block = blocks[number]
        vectors[mine] = block.vectors[rows[mine] - block.start]
    return vectors
