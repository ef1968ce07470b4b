"""Arrays that only grow at their end, so that readers may keep a prefix of them."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)
_FIRST_CAPACITY = 256


class GrowableArray(Generic[_Scalar]):
    """A one-dimensional array with one writer.

    A prefix that a reader took stays as it was: what is added lies behind it, or in a larger copy.

    Args:
        dtype: Of its numbers.
    """

    __slots__ = ("_cells", "_count")

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._cells: NDArray[_Scalar] = np.empty(_FIRST_CAPACITY, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[_Scalar]:
        """(n,) all of them, not a copy."""
        return self._cells[: self._count]

    def add(self, value: Any) -> None:
        """Adds one number."""
        if self._count == len(self._cells):
            self._grow(self._count + 1)
        self._cells[self._count] = value
        self._count += 1

    def extend(self, values: NDArray[Any]) -> None:
        """Adds several."""
        end = self._count + len(values)
        if end > len(self._cells):
            self._grow(end)
        self._cells[self._count : end] = values
        self._count = end

    def _grow(self, least: int) -> None:
        cells = np.empty(max(least, 2 * len(self._cells)), self._cells.dtype)
        cells[: self._count] = self.values
        self._cells = cells
