"""The interface between the follower of a change log and the deltas that it updates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live.progress import LiveState, LiveView
from retrieval.protocols.watermark import Watermark


class ChangeUnusable(Exception):
    """A delta cannot apply a change, however often it is tried; its parts may not agree now."""

    def __init__(self, entry: ChangeEntry) -> None:
        super().__init__(f"change {entry.position} of partition {entry.partition}")
        self.entry = entry


class DeltaStats(NamedTuple):
    """The size of a delta.

    rows: Live chunks in memory, including dead ones. dead_rows: Chunks of documents that were
    replaced or deleted since. hidden_rows: Chunks of the snapshot that are no longer served.
    changes: Changes applied since the snapshot. oldest_change_us: When the oldest of them was
    logged, in microseconds since 1970; 0 if there are none.
    """

    rows: int
    dead_rows: int
    hidden_rows: int
    changes: int
    oldest_change_us: int


class FollowedDelta(Protocol):
    """The live changes of one shard. All methods belong to the event loop."""

    @property
    def view(self) -> LiveView:
        """The newest state."""
        ...

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes; the view contains them afterwards, or once their batch is complete.

        Skips changes already applied. May be cancelled and repeated.

        Args:
            entries: Changes in the partitions of the shard, in order within each partition.
        Raises: SnapshotMismatch: the delta must be recreated. ChangeUnusable: so it must, without
            this change. Any other NearlineError: temporary; retry with the same entries.
        """
        ...

    async def expire(self, now: datetime) -> None:
        """Hides documents that have expired at an aware time."""
        ...

    def set_back(self, reason: str) -> None:
        """Records that the log has lost changes that this delta may contain."""
        ...

    def stats(self) -> DeltaStats:
        """Returns the size as of the newest view."""
        ...

    async def close(self) -> None:
        """Stops background work; views remain usable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedShard:
    """A shard that receives live changes.

    new_delta: Creates a delta; changes in its view are not read from the log again. Takes the
    position up to which the snapshot contains the log, and the log to follow, or None if no log can
    be followed and the existing state must be served unchanged. Raises SnapshotMismatch if the
    existing state does not match the log. attach: Makes searches include the live state.
    """

    number: int
    partitions: tuple[int, ...]
    new_delta: Callable[[Watermark, ChangeLog | None], Awaitable[FollowedDelta]]
    attach: Callable[[LiveState], None]
