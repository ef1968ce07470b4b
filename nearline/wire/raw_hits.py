"""Sequences of hits that stay encoded and are decoded only on access."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

_T = TypeVar("_T")


class RawHits(Sequence[_T]):
    """Records in encoded form; an element is decoded on each access.

    Args:
        messages: One encoded response per record, containing nothing else. Their concatenation is
            one response with all records, since protobuf appends repeated fields when merging.
        read: Decodes a message.
    """

    __slots__ = ("_read", "messages")

    def __init__(self, messages: Sequence[bytes], read: Callable[[bytes], _T]) -> None:
        self.messages = messages
        self._read = read

    def __len__(self) -> int:
        return len(self.messages)

    @overload
    def __getitem__(self, at: int) -> _T: ...
    @overload
    def __getitem__(self, at: slice) -> RawHits[_T]: ...
    def __getitem__(self, at: int | slice) -> _T | RawHits[_T]:
        if isinstance(at, slice):
            return RawHits(self.messages[at], self._read)
        return self._read(self.messages[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
