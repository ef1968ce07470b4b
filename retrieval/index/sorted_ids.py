"""Sorted ids in one block of bytes: as Python strings, a million ids take 70 MB.

If the Arrow file of the ids is mapped, so are they.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from retrieval.protocols.candidates import PackedIds


def index_of(ids: Sequence[str], text: str) -> int | None:
    """Returns the position of an id among sorted ids; None if absent."""
    if isinstance(ids, SortedIds):
        return ids.place_of(text)
    at = bisect_left(ids, text)
    return at if at < len(ids) and ids[at] == text else None


class SortedIds(Sequence[str]):
    """The ids of an Arrow array, whose memory they share.

    Args:
        array: Strings in ascending order, without nulls.
    """

    __slots__ = ("_bytes", "_offsets", "_starts")

    def __init__(self, array: Any) -> None:
        # Not through Arrow scalars: each takes ten times as long, and a search needs many.
        kind: type[np.int64] | type[np.int32] = (
            np.int64 if str(array.type) == "large_string" else np.int32
        )
        _, offsets, content = array.buffers()
        # An empty array may have no offsets.
        self._offsets: NDArray[np.integer[Any]] = np.zeros(1, np.int64)
        if len(array):
            all_offsets: NDArray[Any] = np.frombuffer(offsets, kind)
            self._offsets = all_offsets[array.offset : array.offset + len(array) + 1]
        # Reading a number from a memoryview takes half as long as from an array.
        self._starts: memoryview[int] = self._offsets.data
        self._bytes = memoryview(b"" if content is None else content).cast("B")

    @classmethod
    def of(cls, ids: Sequence[str]) -> SortedIds:
        """Packs ids, which ascend."""
        # Imported late: a router whose snapshots have no interactions needs no pyarrow.
        import pyarrow as pa

        return ids if isinstance(ids, SortedIds) else cls(pa.array(ids, "large_string"))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return str(self._bytes[self._starts[at] : self._starts[at + 1]], "utf-8")

    def many(self, places: NDArray[np.int64] | NDArray[np.int32]) -> list[str]:
        """Returns the ids at these positions."""
        content = self._bytes
        starts, ends = self._offsets[places], self._offsets[places + 1]
        return [
            str(content[start:end], "utf-8")
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def packed(self, places: NDArray[np.int64] | NDArray[np.int32]) -> PackedIds:
        """Returns the ids at these positions, without decoding them."""
        starts = self._offsets[places].astype(np.int64)
        lengths = self._offsets[places + 1] - starts
        stops = np.cumsum(lengths)
        # Places of all bytes: each id counts up from its first byte.
        bytes_of = np.arange(stops[-1] if len(stops) else 0)
        bytes_of += np.repeat(starts - (stops - lengths), lengths)
        content = np.frombuffer(self._bytes, np.uint8)[bytes_of]
        return PackedIds(content.tobytes(), stops - lengths, stops)

    def place_of(self, text: str) -> int | None:
        """Returns the position of an id; None if absent."""
        wanted, starts, content = text.encode(), self._starts, self._bytes
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            # UTF-8 bytes sort like the text.
            if bytes(content[starts[middle] : starts[middle + 1]]) < wanted:
                low = middle + 1
            else:
                high = middle
        if low < len(starts) - 1 and content[starts[low] : starts[low + 1]] == wanted:
            return low
        return None
