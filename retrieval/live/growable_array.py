"""Append-only arrays whose prefixes remain valid for readers."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)
_FIRST_CAPACITY = 256


class GrowableArray(Generic[_Scalar]):
    """A one-dimensional array with one writer.

    A prefix taken by a reader never changes: new values are behind it, or in a larger copy.

    Args:
        dtype: Type of the values.
    """

    __slots__ = ("_cells", "_count")

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._cells: NDArray[_Scalar] = np.empty(_FIRST_CAPACITY, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[_Scalar]:
        """(n,) all values, not a copy."""
        return self._cells[: self._count]

    def add(self, value: Any) -> None:
        """Appends a value."""
        if self._count == len(self._cells):
            self._grow(self._count + 1)
        self._cells[self._count] = value
        self._count += 1

    def extend(self, values: NDArray[Any]) -> None:
        """Appends several values."""
        end = self._count + len(values)
        if end > len(self._cells):
            self._grow(end)
        self._cells[self._count : end] = values
        self._count = end

    def _grow(self, min_capacity: int) -> None:
        cells = np.empty(max(min_capacity, 2 * len(self._cells)), self._cells.dtype)
        cells[: self._count] = self.values
        self._cells = cells
