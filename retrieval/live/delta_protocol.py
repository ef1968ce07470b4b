"""The seam between following a change log and what its changes are collected in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live.view import LiveState, LiveView
from retrieval.protocols.watermark import Watermark


class DeltaStats(NamedTuple):
    """How large a delta is.

    rows: Live chunks in memory, with those of documents that were replaced or deleted since;
    dead_rows: those alone. hidden_rows: Chunks of the snapshot that are served no more.
    changes: Changes applied since the snapshot. oldest_change_us: When the log took the oldest of
    them, microseconds since 1970; 0: there are none.
    """

    rows: int
    dead_rows: int
    hidden_rows: int
    changes: int
    oldest_change_us: int


class FollowedDelta(Protocol):
    """What live changes have made of one shard. All of it belongs to the event loop."""

    @property
    def view(self) -> LiveView:
        """The newest state."""
        ...

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes: the view has them then, or once more have come that go with them.

        What it has already is passed over. May be cancelled: what was begun can be done again.

        Args:
            entries: Of the partitions of the shard, in the order of each.
        Raises: SnapshotMismatch: a delta is to be made again. Any other NearlineError: not now; to
            be asked again, with the same entries.
        """
        ...

    async def expire(self, now: datetime) -> None:
        """Hides what is served no more from an aware time on."""
        ...

    def set_back(self, reason: str) -> None:
        """Takes in that the log has lost changes which may be in here."""
        ...

    def stats(self) -> DeltaStats:
        """Returns how large it is, as of the newest view."""
        ...

    async def close(self) -> None:
        """Stops what runs for it; views stay usable."""
        ...


class DeltaFactory(Protocol):
    """Makes what the changes of a shard are collected in."""

    def __call__(self, start: Watermark, log: ChangeLog | None) -> Awaitable[FollowedDelta]:
        """Makes a delta; what its view has is not read again.

        Args:
            start: How far the snapshot has the log.
            log: The log that is about to be followed; None: none can be, and what is there is to
                be served as it is.
        Raises: SnapshotMismatch: what is there does not go with the log.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedShard:
    """A shard that live changes are to be applied to.

    attach: Has searches look there, too.
    """

    number: int
    partitions: tuple[int, ...]
    new_delta: DeltaFactory
    attach: Callable[[LiveState], None]
