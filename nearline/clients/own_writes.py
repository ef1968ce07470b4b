"""Tracks the writes of a client, so that its reads include them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from nearline.errors import NotApplied, SnapshotMismatch, Unsupported
from nearline.internal.v1 import change_pb2

# Collections whose writes are remembered; a watermark has less than 700 bytes.
_MAX_COLLECTIONS: Final = 1_024

_Reply = TypeVar("_Reply")


class OwnWrites:
    """The watermarks of a client's writes, by collection; those written longest ago are forgotten.

    Args:
        remembered: False remembers nothing, so that reads wait for no write.
    """

    def __init__(self, *, remembered: bool = True) -> None:
        self._remembered = remembered
        self._watermarks: OrderedDict[str, bytes] = OrderedDict()

    def note(self, collection: str, watermark: bytes) -> None:
        """Remembers a write. watermark: That of its reply; empty if it changed nothing."""
        if not self._remembered or not watermark:
            return
        before = self._watermarks.pop(collection, b"")
        self._watermarks[collection] = merge_watermarks(watermark, before)
        if len(self._watermarks) > _MAX_COLLECTIONS:
            self._watermarks.popitem(last=False)

    async def read(
        self, collection: str, given: bytes, read: Callable[[bytes], Awaitable[_Reply]]
    ) -> _Reply:
        """Reads what includes all writes of this client.

        Args:
            collection: The collection.
            given: The caller's own watermark, which is used instead; empty for none.
            read: Reads with a watermark.
        Raises: As `read`. NotApplied: the writes have not arrived where they are read.
        """
        own = b"" if given else self._watermarks.get(collection, b"")
        try:
            return await read(given or own)
        except (SnapshotMismatch, Unsupported) as error:
            if not own or not error.field.endswith("min_watermark"):
                raise
            # The collection has been made again, with another log: nobody can read those writes.
            # Newer ones than those stay.
            if self._watermarks.get(collection) == own:
                del self._watermarks[collection]
            return await read(b"")
        except NotApplied as error:
            if not own:
                raise
            raise error.with_message(
                f"{error.message}; this client waits for its own writes, unless it is made with "
                "own_writes=False"
            ) from error


def merge_watermarks(newer: bytes, older: bytes) -> bytes:
    """Returns the watermark that covers two writes of a collection.

    A write's watermark covers the partitions that it changed, so the newer one need not cover the
    older. If they are of different logs, or of a form that is not known here, the newer one counts.
    """
    first, second = _positions(newer), _positions(older)
    if not first or not second or first.log_id != second.log_id:
        return newer
    if len(first.positions) != len(second.positions):
        return newer
    merged = map(max, first.positions, second.positions)
    return change_pb2.Watermark(log_id=first.log_id, positions=merged).SerializeToString()


def _positions(watermark: bytes) -> change_pb2.Watermark | None:
    try:
        return change_pb2.Watermark.FromString(watermark)
    except DecodeError:
        return None
