"""Live changes of a snapshot in Milvus: one router writes them, the others wait for its writes.

    read the state -> (announce the batch) -> rows -> state -> publish it to reads

If a router dies at any step, another router writes the rows again: the log has the changes, and the
state says where to start. If a batch changes a document twice, repeating the first change after
readers saw the second would restore an older version of the document. In that case
`CollectionState.begun` makes the next writer apply the whole batch at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.retry import Backoff
from nearline.store.snapshot import PARTITIONS
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.progress import LiveState, LiveView
from retrieval.milvus.collection_state import CollectionState
from retrieval.milvus.document_writer import WRITE_S
from retrieval.milvus.live_collection import LiveCollection, any_expires, list_attributes
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.redis_client.lease import Lease

# How often a waiting router reads the progress of the writer, in seconds.
_POLL = Backoff(0.05, 0.5, factor=1.5)
# Without progress of the writer for this long, a waiting router reports that changes stalled.
_WRITER_TIMEOUT_S = 5.0
_ALL_PARTITIONS = tuple(range(PARTITIONS))
_START = (0,) * PARTITIONS


def follow_snapshot(
    collection: LiveCollection, attach: Callable[[LiveState], None]
) -> FollowedShard:
    """Returns a snapshot in Milvus as a shard to which live changes are applied.

    Args:
        collection: The snapshot in Milvus.
        attach: Connects searches with the state of live changes.
    """
    return FollowedShard(
        number=0,
        partitions=_ALL_PARTITIONS,
        new_delta=partial(_new_delta, collection),
        attach=attach,
    )


async def _new_delta(
    collection: LiveCollection, start: Watermark, log: ChangeLog | None
) -> FollowedDelta:
    """Returns a delta that continues from the position of Milvus; see `FollowedShard.new_delta`."""
    state = await collection.read_state()
    position = start
    if log is None:
        if state.log_id:
            position = Watermark(state.log_id, state.positions)
    else:
        if state.log_id == start.log_id:
            position = start.advanced(dict(enumerate(state.positions)))
        await collection.check(state, position, log)
    collection.publish(state)
    return MilvusDelta(collection, state, start, position)


class MilvusDelta:
    """The live changes of a snapshot in Milvus; a `FollowedDelta`.

    Args:
        collection: The snapshot in Milvus.
        state: Current state of the collection.
        start: Log position of the snapshot.
        position: Log position of Milvus.
    """

    def __init__(
        self,
        collection: LiveCollection,
        state: CollectionState,
        start: Watermark,
        position: Watermark,
    ) -> None:
        self._collection = collection
        self._state = state
        self._start = start
        self._position = position
        self._term = 0
        # Timestamp of the last write, for reads; with 0, reads wait for all writes.
        self._seen = 0
        # Changes not written yet, some of which wait for more of their batch.
        self._pending: dict[tuple[int, int], ChangeEntry] = {}
        self._view = LiveView(AppliedState(position))

    @property
    def view(self) -> LiveView:
        """The position reached; the changed rows themselves are in Milvus."""
        return self._view

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Writes changes, or waits until another router has; see `FollowedDelta.apply`."""
        try:
            await self._apply(entries)
        except (NearlineError, asyncio.CancelledError) as error:
            # Read the state again before the next write; a router that fails lets others write.
            self._term = 0
            self._collection.mark_unsure()
            if not isinstance(error, asyncio.CancelledError):
                await self._collection.close()
            raise

    async def _apply(self, entries: Sequence[ChangeEntry]) -> None:
        for entry in entries:
            self._pending[entry.partition, entry.position] = entry
        self._collection.expect(entries)
        loop = asyncio.get_running_loop()
        until, delays = loop.time() + _WRITER_TIMEOUT_S, _POLL.delays()
        while True:
            self._forget_applied()
            if not self._pending:
                return
            state = await self._collection.read_state(newest=False)
            self._check_same(state)
            # Only a router that can read the state competes for the lease.
            lease = await self._collection.lease(state)
            if await lease.acquire():
                await self._write_pending(lease)
                return
            if self._is_ahead(state):
                self._advance_to(state)
                until = loop.time() + _WRITER_TIMEOUT_S
                continue
            if loop.time() > until:
                raise NotReady(
                    f"another router holds the lease to write live changes into Milvus collection "
                    f"{self._collection.name}, and has not written any for {_WRITER_TIMEOUT_S:g} s"
                )
            await asyncio.sleep(next(delays))

    async def expire(self, now: datetime) -> None:
        """Does nothing: reads filter by expiry."""

    def set_back(self, reason: str) -> None:
        """Notes that the log has lost changes."""
        self._collection.set_back(reason)

    def stats(self) -> DeltaStats:
        """Returns the number of changes; rows are not counted, since Milvus holds them."""
        changes = 0
        if self._position.log_id == self._start.log_id:
            changes = sum(self._position.positions) - sum(self._start.positions)
        return DeltaStats(0, 0, 0, changes, self._state.oldest_change_us)

    async def close(self) -> None:
        """Does nothing: the lease belongs to the process."""

    async def _write_pending(self, lease: Lease) -> None:
        """Writes the pending changes, unless the rest of an announced batch is still missing."""
        if lease.term != self._term:
            state = await self._collection.take_over()
            self._check_same(state)
            # The previous writer may have written more than the state says.
            self._seen = 0
            if not self._is_of_log(state):
                state = replace(state, log_id="", positions=_START, begun=_START)
            self._advance_to(state)
            self._term = lease.term
        entries = list(self._pending.values())
        if entries and self._is_complete():
            await self._write(entries, lease)

    async def _write(self, entries: Sequence[ChangeEntry], lease: Lease) -> None:
        def check_lease() -> None:
            if lease.remaining_s < WRITE_S:
                raise NotReady(
                    "the lease to write live changes into Milvus may expire before they are "
                    "written: Redis has not renewed it"
                )

        now = datetime.now(UTC)
        outcomes = await asyncio.to_thread(self._collection.merger.merge, entries, now)
        positions = self._position.advanced(_last_positions(entries)).positions
        before = self._state
        state = replace(
            before,
            log_id=self._position.log_id,
            positions=self._position.positions,
            expiring=before.expiring or any_expires(entries),
            single_valued=before.single_valued - list_attributes(entries),
            oldest_change_us=before.oldest_change_us or min(entry.time_us for entry in entries),
        )
        announced = replace(state, begun=positions if _has_repeats(entries) else before.begun)
        if (announced.begun, announced.expiring, announced.single_valued, announced.log_id) != (
            before.begun,
            before.expiring,
            before.single_valued,
            before.log_id,
        ):
            check_lease()
            await self._collection.write_state(announced)
            self._state = announced
        writer = self._collection.document_writer(state, check_lease)
        self._seen = await writer.write(outcomes, self._seen, now)
        committed = replace(announced, positions=positions, seen=self._seen)
        check_lease()
        await self._collection.write_state(committed)
        self._advance_to(committed)

    def _is_complete(self) -> bool:
        """Returns whether the rest of the announced batch is pending here."""
        reached = dict(enumerate(self._position.positions))
        for partition, position in self._pending:
            reached[partition] = max(reached[partition], position)
        return all(
            reached[partition] >= position for partition, position in enumerate(self._state.begun)
        )

    def _advance_to(self, state: CollectionState) -> None:
        self._state = state
        if state.log_id == self._position.log_id:
            self._position = self._position.advanced(dict(enumerate(state.positions)))
        self._collection.publish(state)
        self._view = LiveView(AppliedState(self._position))
        self._forget_applied()

    def _forget_applied(self) -> None:
        positions = self._position.positions
        for partition, position in tuple(self._pending):
            if position <= positions[partition]:
                del self._pending[partition, position]

    def _check_same(self, state: CollectionState) -> None:
        """Checks that the collection is still the export that this delta started with.

        Raises: SnapshotMismatch: It was exported again, or the log has lost its changes.
        """
        known = self._state
        if state.started_us != known.started_us or state.lost:
            raise SnapshotMismatch(
                f"Milvus collection {self._collection.name} was exported again, or the log has "
                "lost its changes; its state is read again"
            )

    def _is_of_log(self, state: CollectionState) -> bool:
        return state.log_id == self._position.log_id

    def _is_ahead(self, state: CollectionState) -> bool:
        return self._is_of_log(state) and any(
            theirs > ours
            for theirs, ours in zip(state.positions, self._position.positions, strict=True)
        )


def _last_positions(entries: Iterable[ChangeEntry]) -> Mapping[int, int]:
    last: dict[int, int] = {}
    for entry in entries:
        last[entry.partition] = max(last.get(entry.partition, 0), entry.position)
    return last


def _has_repeats(entries: Iterable[ChangeEntry]) -> bool:
    """Returns whether a document changes more than once."""
    counts = Counter(entry.change.document_id for entry in entries)
    return max(counts.values(), default=0) > 1
