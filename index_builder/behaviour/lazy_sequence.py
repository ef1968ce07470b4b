"""A sequence whose elements are computed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

_T = TypeVar("_T")


class LazySequence(Sequence[_T]):
    """A sequence of fixed length.

    Args:
        count: Number of elements.
        compute: Returns the element at a position, 0..count - 1.
    """

    def __init__(self, count: int, compute: Callable[[int], _T]) -> None:
        self._count = count
        self._compute = compute

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> _T: ...
    @overload
    def __getitem__(self, at: slice) -> list[_T]: ...
    def __getitem__(self, at: int | slice) -> _T | list[_T]:
        places = range(self._count)[at]
        if isinstance(places, int):
            return self._compute(places)
        return [self._compute(one) for one in places]
