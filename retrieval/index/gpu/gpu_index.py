"""Exact search on GPUs: a GPU finds candidates in float16, and the CPU scores those few in float32.

The error of a score in float16 has a bound. If the k-th score, computed again from the vectors of
the index, is above the last candidate's by more than that, no other row can be among the best,
provided that the GPU computes correctly; scores of candidates that are further off show that it
does not. Results equal those of an exact search on the CPU to the last bit, unless the index
compresses its vectors; then scores may differ in their last digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.device_data import DeviceVectors
from retrieval.index.gpu.search_queue import Candidates
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import Neighbours, fit_to_k

_LEAST_WIDTH, MAX_WIDTH = 32, 2_048
# If fewer rows are allowed than this share, only they are compared. Of more, the device compares
# all, and the others are dropped: cheaper than to gather most of the vectors.
_GATHER_SHARE = 0.25
_HALF = 2.0**-11
_SUBNORMAL = 2.0**-25
# Larger than the rounding error of float32: tensor cores truncate.
_SUM = 2.0**-22
# Of a query; its products with vectors are then far from the limits of float32.
_LONGEST = 1e15
_WRONG = "its scores are wrong"


class GpuPart(NamedTuple):
    """Some vectors of an index, and the device that holds them."""

    device: GpuDevice
    vectors: DeviceVectors


class GpuResult(NamedTuple):
    """Rows of all queries but some, by their places, which only the CPU can answer."""

    found: Neighbours
    left: NDArray[np.int64]


class _Scored(NamedTuple):
    """Candidates of a part with their true scores, and a bound of the scores of its other rows."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    others: NDArray[np.float64]


class GpuIndex:
    """The vectors of an index on one GPU or several; may be used from several threads.

    Args:
        index: The index on the CPU, by inner product.
        parts: Consecutive ranges of all its vectors.
    """

    exact = True

    def __init__(self, index: FaissIndex, parts: Sequence[GpuPart]) -> None:
        self._storage = index.storage()
        self._parts = parts

    @property
    def answers(self) -> bool:
        """Whether all devices answer."""
        return not any(part.device.reason for part in self._parts)

    def search(
        self, queries: NDArray[np.float32], k: int, among: Matches | None = None, *, exact: bool
    ) -> GpuResult:
        """Finds the k best rows by comparing all vectors; blocks.

        Args:
            queries: (n, d) float32, finite, C order.
            k: Rows per query, >= 1.
            among: Optional; the rows to search.
            exact: Whether results must be proven exact. Otherwise one may lack a row whose score
                differs from the k-th by less than the error of float16.
        Raises: NotOnDevice: a GPU cannot answer; the index on the CPU can.
        """
        count = self._storage.rows if among is None else among.count
        wanted = min(k, count)
        share = count / self._storage.rows
        asked = self._storage.transformed(queries)
        unit, lengths = _unit(asked)
        gather = among is not None and share < _GATHER_SHARE
        width = _width(wanted if gather else math.ceil(wanted / max(share, 1e-9)))
        if width > MAX_WIDTH:
            raise NotOnDevice(f"a GPU finds at most {MAX_WIDTH // 2:,} rows", fault=False)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        left = np.arange(len(queries) if wanted else 0)
        while len(left) and width <= MAX_WIDTH:
            rows, found, certain = self._round(
                asked[left], unit[left], lengths[left], wanted, width, among, gather=gather
            )
            done = certain if exact else certain | (rows[:, -1] >= 0)
            ids[left[done], :wanted] = rows[done]
            scores[left[done], :wanted] = found[done]
            left = left[~done]
            # What is left may have few allowed rows nearby, or many with nearly equal scores.
            gather, width = among is not None, 4 * width
        return GpuResult(Neighbours(ids, scores, full=wanted == k and not len(left)), left)

    def close(self) -> None:
        """Frees the memory of the devices; no search may be running."""
        for device, vectors in self._parts:
            device.drop(vectors)

    def _round(
        self,
        asked: NDArray[np.float32],
        unit: NDArray[np.float16],
        lengths: NDArray[np.float64],
        k: int,
        width: int,
        among: Matches | None,
        *,
        gather: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Returns the k best of the candidates per query, and whether each result is proven."""
        futures = []
        for device, vectors in self._parts:
            allow = None
            if gather and among is not None:
                last = vectors.first + vectors.rows
                allow = among.bitmap[vectors.first // 8 : -(-last // 8)]
            futures.append(device.submit(vectors, unit, width, allow, among if gather else None))
        found = [
            self._scored(part, future, asked, lengths)
            for part, future in zip(self._parts, futures, strict=True)
        ]
        rows = np.concatenate([one.rows for one in found], axis=1)
        scores = np.concatenate([one.scores for one in found], axis=1)
        if among is not None and not gather:
            allowed = among.chunks[rows]
            rows, scores = np.where(allowed, rows, -1), np.where(allowed, scores, -np.inf)
        order = np.lexsort((rows, -scores), axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        rows, scores, _ = fit_to_k(Neighbours(rows, scores), k)
        certain = rows[:, -1] >= 0
        for part, one in zip(self._parts, found, strict=True):
            # Of a part that returned fewer rows than requested, or all, there are no others.
            if one.rows.shape[1] == width < part.vectors.rows:
                certain &= scores[:, -1] > one.others
        return rows, scores, certain

    def _scored(
        self,
        part: GpuPart,
        future: Future[Candidates],
        asked: NDArray[np.float32],
        lengths: NDArray[np.float64],
    ) -> _Scored:
        """Waits for the candidates of a part, and computes their scores on the CPU.

        Raises: NotOnDevice: there are none, or the scores of the device are wrong.
        """
        device, vectors = part
        try:
            near = future.result()
        except NotOnDevice as error:
            raise NotOnDevice(f"GPU {device.name}: {error}", fault=error.fault) from error
        rows = near.rows + vectors.first
        scores = self._storage.scores(asked, rows)
        bound = self._bound(vectors.longest)
        # Written so that NaN is wrong, too.
        if not (np.abs(near.scores * lengths - scores) <= bound * lengths).all():
            device.fail(_WRONG)
            raise NotOnDevice(f"GPU {device.name}: {_WRONG}", fault=True)
        if not rows.shape[1]:
            return _Scored(rows, scores, np.full(len(asked), -np.inf))
        return _Scored(rows, scores, (near.scores[:, -1] + bound) * lengths[:, 0])

    def _bound(self, longest: float) -> float:
        """Returns the largest error of a score by the device, for a query of unit length.

        Vectors, queries and the score are each rounded to float16, and the sum has an error of its
        own, as has that of the CPU.

        Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, 2.2 and 3.1.
        """
        dim = self._storage.dim
        rounded = 3 * _HALF * longest + _SUBNORMAL * (math.sqrt(dim) * (longest + 1) + 1)
        return 1.01 * (rounded + 2 * (dim + 2) * _SUM * longest)


def _unit(queries: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
    """Returns queries of unit length, and their lengths: (n, 1); zeros stay as they are.

    Raises: NotOnDevice: scores of a query would be too large or too small for float32.
    """
    wide = queries.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if ((lengths > _LONGEST) | ((lengths > 0) & (lengths < 1 / _LONGEST))).any():
        raise NotOnDevice("a query is too long or too short for a GPU", fault=False)
    return (wide / np.where(lengths > 0, lengths, 1.0)).astype(np.float16), lengths


def _width(k: int) -> int:
    """Returns the number of candidates for k results: a power of two, to share calls."""
    return max(_LEAST_WIDTH, 1 << (2 * k - 1).bit_length())
