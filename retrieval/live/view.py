"""What live changes have made of a shard, as its searches see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from retrieval.index.filtering.planner import Matches
from retrieval.index.segment import Segment
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import Watermark


@dataclass(frozen=True, slots=True, eq=False)
class LiveView:
    """What live changes have made of a shard, at one moment; never changes.

    applied: How far the log has been applied.
    alive: What is left of the snapshot's part; None: all of it.
    part: What live changes brought; None: nothing that is served. part_alive: What of it is alive.
    """

    applied: AppliedState
    alive: Matches | None = None
    part: Segment | None = None
    part_alive: Matches | None = None


class LiveState(Protocol):
    """Live changes beside one shard of one snapshot."""

    @property
    def view(self) -> LiveView:
        """The newest state; may be read from any thread."""
        ...

    def reached(self, least: Watermark) -> bool:
        """Returns whether the view is that far, in the partitions of the shard.

        Raises: SnapshotMismatch: of another log.
        """
        ...

    async def wait(self, least: Watermark, deadline: float | None) -> None:
        """Returns once the view is that far.

        Args:
            deadline: Time of the running loop; None: a few seconds from now.
        Raises: NotReady: not in time; says how far it is. SnapshotMismatch: of another log.
        """
        ...
