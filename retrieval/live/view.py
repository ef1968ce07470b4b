"""The live state of a shard, as seen by searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from retrieval.index.filtering.planner import Matches
from retrieval.index.segment import Segment
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import Watermark


@dataclass(frozen=True, slots=True, eq=False)
class LiveView:
    """An immutable view of the live changes of a shard.

    applied: How far the log has been applied.
    alive: The remaining documents of the snapshot segment; None if all remain.
    part: The live segment; None if it has no served documents. part_alive: Its alive documents;
    None if all are alive.
    """

    applied: AppliedState
    alive: Matches | None = None
    part: Segment | None = None
    part_alive: Matches | None = None


class LiveState(Protocol):
    """The live changes of one shard of one snapshot."""

    @property
    def view(self) -> LiveView:
        """The newest state; may be read from any thread."""
        ...

    def reached(self, least: Watermark) -> bool:
        """Returns whether the view contains the shard's changes up to a position.

        Raises: SnapshotMismatch: the position belongs to another log.
        """
        ...

    async def wait(self, least: Watermark, deadline: float | None) -> None:
        """Returns once the view contains all changes up to a position.

        Args:
            least: The position.
            deadline: Time of the running loop; None waits for a few seconds.
        Raises: NotReady: not in time; says how many changes are missing. SnapshotMismatch: the
            position belongs to another log.
        """
        ...
