"""The live state of a shard: its view, its progress, and waiting for changes to be applied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from nearline.errors import NearlineError, NotApplied
from retrieval.index.filtering.planner import Matches
from retrieval.index.segment import Segment
from retrieval.protocols.watermark import AppliedState, Watermark

# Changes are applied within milliseconds; this is the limit of requests without a deadline.
DEFAULT_WAIT_S = 5.0
_RETRY_AFTER_S = 1.0
# End a wait early enough to return an explanation within the deadline, also on a busy machine.
_MARGIN_S, _MARGIN_RATIO = 0.02, 0.1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardProgress:
    """Progress of the live changes of one shard; see DeltaStatus in shard.proto.

    away_s: Seconds since the log became unavailable; None if it is available.
    oldest_change: Aware time of the oldest change that the snapshot does not contain.
    """

    applied: AppliedState
    rows: int = 0
    dead_rows: int = 0
    hidden_rows: int = 0
    changes: int = 0
    behind: int = 0
    away_s: float | None = None
    oldest_change: datetime | None = None


class LiveState:
    """The live changes of one shard of one snapshot, as requests see them.

    view: The newest state; may be read from any thread. Everything else belongs to the event loop.

    Args:
        number: Shard number, for error messages.
        partitions: Partitions of the shard.
        view: The initial view.
    """

    def __init__(self, number: int, partitions: Sequence[int], view: LiveView) -> None:
        self.view = view
        self._number = number
        self._partitions = tuple(partitions)
        self._waiting: dict[asyncio.Future[None], Watermark] = {}

    def publish(self, view: LiveView) -> None:
        """Publishes a new view, and wakes the requests that waited for it."""
        self.view = view
        for future, least in self._waiting.items():
            if future.done():
                continue
            try:
                if self.reached(least):
                    future.set_result(None)
            except NearlineError as error:
                # The requested log was replaced by a different one.
                future.set_exception(error)

    def reached(self, least: Watermark) -> bool:
        """Returns whether the view contains the shard's changes up to a position.

        Raises: SnapshotMismatch: the position belongs to another log.
        """
        return self.view.applied.watermark.covers(least, self._partitions)

    async def wait(self, least: Watermark, deadline: float | None) -> None:
        """Returns once the view contains all changes up to a position.

        Args:
            least: The position.
            deadline: Time of the running loop; None waits for a few seconds.
        Raises: NotReady: not in time; says how many changes are missing. SnapshotMismatch: the
            position belongs to another log.
        """
        if self.reached(least):
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = least
        start = loop.time()
        end = start + DEFAULT_WAIT_S
        if deadline is not None:
            end = deadline - max(_MARGIN_S, _MARGIN_RATIO * (deadline - start))
        try:
            async with asyncio.timeout_at(end):
                await future
        except TimeoutError:
            raise self._not_applied(least, loop.time() - start) from None
        finally:
            del self._waiting[future]

    def close(self, error: NearlineError) -> None:
        """Fails all waiting requests."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)

    def _not_applied(self, least: Watermark, waited_s: float) -> NotApplied:
        applied = self.view.applied
        missing = sum(
            max(0, least.positions[one] - applied.watermark.positions[one])
            for one in self._partitions
        )
        reason = f" ({applied.stale})" if applied.stale else ""
        return NotApplied(
            f"shard {self._number} has not applied {missing} of the changes that min_watermark "
            f"names, after {max(0.0, waited_s):.1f} s{reason}; try again, or omit min_watermark",
            field="options.min_watermark",
            retry_after_s=_RETRY_AFTER_S,
        )
