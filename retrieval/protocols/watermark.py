"""How far a change log has been applied: a position in each of its 64 partitions."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError

from nearline.errors import InvalidRequest, SnapshotMismatch
from nearline.snapshot import PARTITIONS
from nearline.v1 import change_pb2

_NOWHERE = (0,) * PARTITIONS


@dataclass(frozen=True, slots=True)
class Watermark:
    """A position in a change log; hashable.

    positions: By partition, (64,): number of the last change; 0: before the first, or a partition
        that this says nothing of.
    """

    log_id: str
    positions: tuple[int, ...] = _NOWHERE

    def encode(self) -> bytes:
        """Returns the opaque bytes that users see."""
        return _encode(self)

    def covers(self, other: Watermark, partitions: Iterable[int] | None = None) -> bool:
        """Returns whether this is at least as far as another one, in these partitions; None: in
        all.

        Raises: SnapshotMismatch: of another log.
        """
        if other.log_id != self.log_id:
            raise SnapshotMismatch(
                f"the watermark is of change log {other.log_id}, {self.log_id} is followed here; "
                "leave it out, and read the items again",
                field="min_watermark",
            )
        if partitions is None:
            return all(map(operator.ge, self.positions, other.positions))
        return all(self.positions[one] >= other.positions[one] for one in partitions)

    def changes_from(self, other: Watermark) -> int | None:
        """Counts the changes that lie between two positions; None: they are of two logs."""
        if other.log_id != self.log_id:
            return None
        return sum(
            abs(here - there) for here, there in zip(self.positions, other.positions, strict=True)
        )

    def advanced(self, positions: Mapping[int, int]) -> Watermark:
        """Returns the watermark with some partitions further ahead; never further back."""
        moved = list(self.positions)
        for partition, position in positions.items():
            moved[partition] = max(moved[partition], position)
        return Watermark(self.log_id, tuple(moved))

    def limited(self, other: Watermark) -> Watermark:
        """Returns how far both are, in this log."""
        return Watermark(self.log_id, tuple(map(min, self.positions, other.positions)))


def decode_watermark(data: bytes, field: str = "min_watermark") -> Watermark | None:
    """Reads opaque bytes; None where they are empty.

    Raises: InvalidRequest: not a watermark of ours.
    """
    return _decode(data, field) if data else None


@lru_cache(1_024)
def merge_watermarks(parts: tuple[Watermark, ...]) -> Watermark:
    """Puts watermarks of one log together, each saying its own partitions: the furthest of each.

    Args:
        parts: At least one. Of several logs the first counts: a flip is under way.
    """
    first = parts[0]
    same = [part.positions for part in parts if part.log_id == first.log_id]
    return first if len(same) == 1 else Watermark(first.log_id, tuple(map(max, *same)))


@lru_cache(1_024)
def _encode(watermark: Watermark) -> bytes:
    message = change_pb2.Watermark(log_id=watermark.log_id, positions=watermark.positions)
    return message.SerializeToString(deterministic=True)


@lru_cache(1_024)
def _decode(data: bytes, field: str) -> Watermark:
    try:
        message = change_pb2.Watermark.FromString(data)
    except DecodeError:
        message = change_pb2.Watermark()
    if not message.log_id or len(message.positions) != PARTITIONS:
        raise InvalidRequest(
            f"{field} is not one that this service gave; pass the watermark of a reply as it is",
            field=field,
        )
    return Watermark(message.log_id, tuple(message.positions))
