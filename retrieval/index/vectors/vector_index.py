"""The seam between a shard and the engine that finds its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class SearchParams(NamedTuple):
    """How wide to search; None takes the index's default.

    exact: Compare with every stored vector; the widths are then without effect.
    """

    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False


class Neighbours(NamedTuple):
    """The k best rows per query, by (score descending, row ascending).

    ids: (n, k) int64, -1 where there is none. scores: (n, k) float32, -inf there.
    full: True where every query has k rows; False says nothing.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """What an index is.

    knobs: The fields of SearchParams that it can honour.
    ef_search, nprobe: Widths where a request names none; without effect where it has no such knob.
    exact_together: Many queries are searched exactly in little more time than a few, without a
    bitmap.
    """

    kind: str
    dim: int
    rows: int
    knobs: frozenset[str]
    ef_search: int = 64
    nprobe: int = 1
    exact_together: bool = False


class VectorIndex(Protocol):
    """Finds the rows whose vectors score best; a larger score is better.

    Building is not in it, nor are ids of documents, payload, or caching.
    """

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = ...,
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """Finds neighbours; blocks, and may be called from many threads at once.

        Args:
            queries: (n, d) float32, C order.
            k: Places per query, >= 1.
            params: Widths; one that the index does not have raises.
            allow: Bitmap of the rows to consider, least significant bit first; None: all.
            rows: The rows of the bitmap, ascending, where the caller has them: saves reading it.
        Raises: Unsupported: the index has no such knob, or cannot search exactly.
        """
        ...

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns stored vectors: (n, d) float32, as exact as the index keeps them."""
        ...

    def describe(self) -> IndexInfo:
        """Returns the card of the index."""
        ...

    def close(self) -> None:
        """Releases the file; no search may be running."""
        ...
