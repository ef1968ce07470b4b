"""A cache in this process that is bounded by the memory of its values."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Entry(NamedTuple, Generic[_Value]):
    value: _Value
    size: int
    until: float


class ByteCache(Generic[_Key, _Value]):
    """Keeps the values that were read last.

    Args:
        max_bytes: Largest sum of the sizes that `put` was given.
        keep_s: Time after which a value is dropped.
        clock: Seconds, never going back.
    """

    def __init__(
        self, max_bytes: int, keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._bytes = 0
        self._entries: OrderedDict[_Key, _Entry[_Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self._bytes

    def get(self, key: _Key) -> _Value | None:
        """Returns a value, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: _Key, value: _Value, size: int) -> None:
        """Stores a value. One that takes more than a hundredth of the memory is not kept.

        Args:
            size: Bytes of the key and the value.
        """
        self._drop(key)
        if 100 * size > self._max_bytes:
            return
        self._entries[key] = _Entry(value, size, self._clock() + self._keep_s)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= entry.size
