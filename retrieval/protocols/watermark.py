"""Watermarks: positions in a change log, one for each of its 64 partitions."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from nearline.errors import InvalidRequest, SnapshotMismatch
from nearline.internal.v1 import change_pb2
from nearline.store.snapshot import PARTITIONS

_NOWHERE = (0,) * PARTITIONS
# Longer ones are forged: the log id has 32 characters, and a position at most ten bytes.
_MAX_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Watermark:
    """A position in a change log; hashable.

    positions: (64,) number of the last change in each partition; 0 means before the first change,
        or a partition that the watermark does not cover.
    """

    log_id: str
    positions: tuple[int, ...] = _NOWHERE

    def encode(self) -> bytes:
        """Returns the watermark as opaque bytes for callers."""
        return _encode(self)

    def covers(self, other: Watermark, partitions: Iterable[int] | None = None) -> bool:
        """Returns whether this watermark has reached another one.

        Args:
            partitions: Partitions to compare; None compares all.
        Raises: SnapshotMismatch: the other watermark belongs to another log.
        """
        if other.log_id != self.log_id:
            raise SnapshotMismatch(
                f"the watermark belongs to change log {other.log_id}, but {self.log_id} is "
                "followed here; omit the watermark, and read the items again",
                field="min_watermark",
            )
        if partitions is None:
            return all(map(operator.ge, self.positions, other.positions))
        return all(self.positions[one] >= other.positions[one] for one in partitions)

    def changes_from(self, other: Watermark) -> int | None:
        """Returns the number of changes between two positions; None if their logs differ."""
        if other.log_id != self.log_id:
            return None
        return sum(
            abs(mine - theirs) for mine, theirs in zip(self.positions, other.positions, strict=True)
        )

    def advanced(self, positions: Mapping[int, int]) -> Watermark:
        """Returns the watermark with some partitions advanced; none is ever set back."""
        moved = list(self.positions)
        for partition, position in positions.items():
            moved[partition] = max(moved[partition], position)
        return Watermark(self.log_id, tuple(moved))

    def limited(self, other: Watermark) -> Watermark:
        """Returns the position that both have reached, in this log."""
        return Watermark(self.log_id, tuple(map(min, self.positions, other.positions)))


class AppliedState(NamedTuple):
    """Progress of live changes in an answer of a shard.

    watermark: Position in the partitions of the shard; 0 in the others.
    stale: Why the answer may be behind the change log; empty if it is not.
    """

    watermark: Watermark
    stale: str = ""


def decode_watermark(data: bytes, field: str = "min_watermark") -> Watermark | None:
    """Decodes opaque bytes; returns None if they are empty.

    Raises: InvalidRequest: not a valid watermark.
    """
    if len(data) > _MAX_BYTES:
        # Decoded ones are cached.
        raise _invalid_error(field)
    return _decode(data, field) if data else None


@lru_cache(1_024)
def merge_watermarks(parts: tuple[Watermark, ...]) -> Watermark:
    """Merges watermarks of one log: the furthest position of each partition.

    Args:
        parts: At least one. If they are of several logs (during a change of logs), the log of the
            first counts.
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
        raise _invalid_error(field)
    return Watermark(message.log_id, tuple(message.positions))


def _invalid_error(field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field} is not a watermark of this service; pass the watermark of a reply unchanged",
        field=field,
    )
