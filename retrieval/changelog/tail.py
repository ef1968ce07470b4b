"""Continuous reading of a change log from the position of a snapshot."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from nearline.errors import NearlineError, SnapshotMismatch
from nearline.retry import Backoff, retry
from nearline.store.snapshot import PARTITIONS
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.changelog.start_position import start_position
from retrieval.protocols.watermark import Watermark

# Every read covers all partitions and publishes a new state, however few entries arrived. Under
# continuous writes, the entries of this interval are therefore read together; a single change after
# a quiet period is read at once.
_MIN_INTERVAL_S = 0.05
_WAIT_S = 1.0
_HEAD_INTERVAL_S = 1.0


class LogTail:
    """Reads the entries of a change log as they are appended.

        locate (the start for a snapshot) -> seek -> read, read, …

    Args:
        log: The log; nothing else may read through this object.
        logs: Reads the ids of the logs that the store names, in a thread: the current log last,
            preceded by those that it continues; empty if no log exists yet.
        on_outage: Receives the error of each failed read.
        partitions: Partitions to read.
        limit: Maximum entries of one partition per read.
        backoff: Delays between attempts while the log is unavailable.
    """

    def __init__(
        self,
        log: ChangeLog,
        logs: Callable[[], Sequence[str]],
        on_outage: Callable[[NearlineError], None],
        *,
        partitions: Iterable[int] = range(PARTITIONS),
        limit: int,
        backoff: Backoff,
    ) -> None:
        self.log_ids: Sequence[str] | None = None
        self.head: dict[int, int] = {}
        self._log = log
        self._read_log_ids = logs
        self._on_outage = on_outage
        self._partitions = tuple(partitions)
        self._limit = limit
        self._backoff = backoff
        self._log_id = ""
        self._initial_head: Mapping[int, int] = {}
        self._positions: dict[int, int] = {}
        self._last_read = self._next_head_read = 0.0

    @property
    def at_initial_head(self) -> bool:
        """Whether everything that the log contained at `locate` has been read."""
        return all(at >= self._initial_head[one] for one, at in self._positions.items())

    async def locate(self, manifest: snapshot_pb2.Manifest) -> Watermark:
        """Returns the position after which a snapshot continues, and learns the head of the log.

        Sets `log_ids` even if the log is unavailable; None if the store could not be read either.

        Raises: NotReady: the log is unavailable. SnapshotMismatch: see `start_position`.
        """
        self.log_ids = None
        self.log_ids = await asyncio.to_thread(self._read_log_ids)
        # This call creates the log if none exists.
        state = await self._log.state()
        self.log_ids = self.log_ids or await asyncio.to_thread(self._read_log_ids)
        start = start_position(manifest, self.log_ids, state, self._partitions)
        self._log_id = start.log_id
        self.head = {one: state.head.positions[one] for one in self._partitions}
        self._initial_head = dict(self.head)
        return start

    def seek(self, positions: Mapping[int, int]) -> None:
        """Continues after these positions, one per partition."""
        self._positions = dict(positions)

    async def read(self) -> Sequence[ChangeEntry]:
        """Returns the next entries, possibly none; retries while the log is unavailable.

        Raises: SnapshotMismatch: the log was trimmed, set back or replaced; locate again.
        """
        entries = await retry(
            self._read,
            on=NearlineError,
            unless=SnapshotMismatch,
            delays=self._backoff.delays(),
            heed_retry_after=False,
            on_failure=self._on_outage,
        )
        for entry in entries:
            self._positions[entry.partition] = entry.position
            self.head[entry.partition] = max(self.head[entry.partition], entry.position)
        return entries

    async def _read(self) -> Sequence[ChangeEntry]:
        await asyncio.sleep(self._last_read + _MIN_INTERVAL_S - time.monotonic())
        self._last_read = time.monotonic()
        entries = await self._log.read(self._positions, limit=self._limit, wait_s=_WAIT_S)
        largest = Counter(entry.partition for entry in entries).most_common(1)
        # After a large read there may be more entries: find the end of the log.
        if largest and largest[0][1] >= self._limit // 2:
            await self._read_head()
        return entries

    async def _read_head(self) -> None:
        if time.monotonic() < self._next_head_read:
            return
        head = (await self._log.state()).head
        if head.log_id != self._log_id:
            raise SnapshotMismatch(
                f"change log {head.log_id} has replaced {self._log_id}, which was being followed"
            )
        self._next_head_read = time.monotonic() + _HEAD_INTERVAL_S
        self.head = {one: max(at, head.positions[one]) for one, at in self.head.items()}
