"""Vectors in the memory of a device, compared with queries by matrix products.

The only module of the retrieval package that imports torch, and not in a process with FAISS: each
brings a runtime of its own for threads.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

_log = logging.getLogger(__name__)
# Scores that exist at once, in bytes.
_TILE_BYTES = 1 << 30
_LEAST_TILE_BYTES = 1 << 24
# Vectors that are gathered at once for a search among some rows.
_TILE_ROWS = 1 << 19
# The best rows lie in the groups with the best maxima, so most scores are read only once.
_GROUP = 64


class DeviceMatrix:
    """Vectors as float16 on a device; may be filled in one thread and searched in another.

    Args:
        rows, dim: Number of vectors, and of their components.
        device: A torch device, for example "cuda:0".
    """

    def __init__(self, rows: int, dim: int, device: str) -> None:
        # A sum of products in float16 would have no useful bound of its error.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._vectors = torch.zeros((rows, dim), dtype=torch.float16, device=device)
        self._tile_bytes = _TILE_BYTES

    def fill(self, first: int, block: NDArray[np.float16]) -> None:
        """Sets vectors from row `first` on: (n, dim) float16."""
        self._vectors[first : first + len(block)].copy_(torch.from_numpy(block))

    def checksum(self) -> int:
        """Returns the sum of all numbers, their bits read as 16-bit integers."""
        bits = self._vectors.view(torch.int16)
        starts = range(0, len(bits), _TILE_ROWS)
        return sum(int(bits[at : at + _TILE_ROWS].sum(dtype=torch.int64)) for at in starts)

    def search(
        self, queries: NDArray[np.float16], k: int, allow: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the k rows with the largest inner products, for each query.

        Args:
            queries: (n, dim) float16.
            k: Number of rows, >= 1.
            allow: Optional; bitmap of the rows to search, least significant bit first.
        Returns: (n, m) int64 row numbers, best first, m = k or all rows if they are fewer;
            (n, m) float32 scores, rounded to float16.
        Raises: torch.OutOfMemoryError: not even a small part of the scores fits.
        """
        with torch.inference_mode():
            asked = torch.from_numpy(queries).to(self._vectors.device)
            rows = None if allow is None else self._rows(allow)
            while True:
                try:
                    scores, found = self._search(asked, k, rows)
                    return found.cpu().numpy(), scores.float().cpu().numpy()
                except torch.OutOfMemoryError:
                    if self._tile_bytes <= _LEAST_TILE_BYTES:
                        raise
                # Outside the handler: the traceback holds the scores that did not fit.
                self._tile_bytes //= 2
                torch.cuda.empty_cache()
                _log.warning(
                    "the device has no memory for scores; fewer are computed at once from now on",
                    extra={"bytes": self._tile_bytes},
                )

    def _rows(self, allow: NDArray[np.uint8]) -> torch.Tensor:
        """Returns the row numbers of a bitmap, ascending."""
        bits = torch.from_numpy(allow).to(self._vectors.device).unsqueeze(1)
        ones = (bits >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
        return ones.view(-1)[: len(self._vectors)].nonzero().squeeze(1)

    def _search(
        self, queries: torch.Tensor, k: int, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(self._vectors) if rows is None else len(rows)
        step = max(_GROUP, self._tile_bytes // (queries.element_size() * len(queries)))
        if rows is not None:
            step = min(step, _TILE_ROWS)
        best = [queries.new_empty((len(queries), 0))]
        found = [torch.empty_like(best[0], dtype=torch.int64)]
        for first in range(0, count, step):
            if rows is None:
                tile = self._vectors[first : first + step]
            else:
                tile = self._vectors[rows[first : first + step]]
            scores, places = _best(queries @ tile.T, min(k, len(tile)))
            best.append(scores)
            found.append(places + first)
        scores, order = torch.cat(best, 1).topk(min(k, count), 1)
        places = torch.cat(found, 1).gather(1, order)
        return scores, places if rows is None else rows[places]


def _best(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the k largest numbers of each row, and their columns."""
    n, width = scores.shape
    groups = width // _GROUP
    if groups <= k:
        top = scores.topk(k, 1)
        return top.values, top.indices
    whole = groups * _GROUP
    maxima = scores[:, :whole].view(n, groups, _GROUP).amax(2)
    first = maxima.topk(k, 1).indices * _GROUP
    columns = (first.unsqueeze(2) + torch.arange(_GROUP, device=scores.device)).view(n, -1)
    rest = torch.arange(whole, width, device=scores.device).expand(n, -1)
    columns = torch.cat([columns, rest], 1)
    top = scores.gather(1, columns).topk(k, 1)
    return top.values, columns.gather(1, top.indices)


def warm(device: str) -> None:
    """Searches a little once: the first products on a GPU load libraries, which takes seconds.

    Raises: RuntimeError: the device cannot be used.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU; run nearline doctor")
    rows, dim = 64 * _GROUP, 64
    vectors = DeviceMatrix(rows, dim, device)
    allow = np.full(rows // 8, 255, np.uint8)
    for queries in (np.zeros((1, dim), np.float16), np.zeros((64, dim), np.float16)):
        vectors.search(queries, 32)
        vectors.search(queries, 32, allow)


def memory(device: str) -> tuple[int, int]:
    """Returns the free and the total memory of a device, in bytes; 0 and 0 for a CPU."""
    if torch.device(device).type == "cpu":
        return 0, 0
    # Memory that torch keeps for later is free for it.
    free, total = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + kept, total
