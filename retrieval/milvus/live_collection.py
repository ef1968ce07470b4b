"""A Milvus collection under live changes: its state, its lease and its reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from nearline.errors import NotReady, SnapshotMismatch
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry, ChangeKind
from retrieval.milvus.change_merge import ChangeMerger
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates
from retrieval.milvus.document_writer import WRITE_S, DocumentWriter
from retrieval.milvus.reader import ReadContext
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.lease import Lease

_log = logging.getLogger(__name__)


class LiveCollection:
    """A Milvus collection that receives live changes; belongs to one event loop.

    Args:
        client: Client of the Milvus server.
        name: Name of the Milvus collection.
        context: Read context of the collection; updated here.
        merger: Merges the changes of the snapshot.
        new_lease: Returns the lease for an export, given its `CollectionState.started_us`. None if
            no log is followed, so that nothing is written.
        logs: Returns the logs that the store names; runs in a thread. See `LogFollower`.
        remedy: Command that exports the snapshot, for errors.
    """

    def __init__(
        self,
        client: MilvusClient,
        name: str,
        context: ReadContext,
        merger: ChangeMerger,
        new_lease: Callable[[int], Lease] | None,
        *,
        logs: Callable[[], Sequence[str]],
        remedy: str,
    ) -> None:
        self.name = name
        self.merger = merger
        self._client = client
        self._context = context
        self._new_lease = new_lease
        self._lease: tuple[int, Lease] | None = None
        self._read_logs = logs
        self._states = CollectionStates(client)
        self._remedy = remedy
        self._lost = ""
        self._unsure = False
        self._writer = ""

    async def close(self) -> None:
        """Releases the lease; it can be acquired again."""
        if self._lease is not None:
            await self._lease[1].release()

    async def lease(self, state: CollectionState) -> Lease:
        """Returns the lease for the export of a state; each export has a lease of its own."""
        assert self._new_lease is not None, "without a lease no log is followed"
        if self._lease is None or self._lease[0] != state.started_us:
            await self.close()
            self._lease = state.started_us, self._new_lease(state.started_us)
        return self._lease[1]

    def document_writer(
        self, state: CollectionState, check_lease: Callable[[], None]
    ) -> DocumentWriter:
        """Returns a writer of documents."""
        return DocumentWriter(
            self._client, self._writer, self.merger, words=state.words, check_lease=check_lease
        )

    async def take_over(self) -> CollectionState:
        """Ends the writes of all other writers; returns the state that they left."""
        self._writer = await self._client.take_over(self.name, timeout_s=WRITE_S)
        return await self.read_state()

    async def read_state(self, *, newest: bool = True) -> CollectionState:
        """Returns the state of the collection.

        Raises: NotReady: The collection does not exist or is incomplete. Any error of the client.
        """
        if self._unsure:
            # After a restart of the server, no collection is loaded.
            await self._states.create()
            await self._client.load(self.name)
            self._unsure = False
        try:
            state = await self._states.read(self.name, newest=newest)
        except NotReady:
            self._unsure = True
            raise
        if state is None or not state.whole:
            raise NotReady(
                f"Milvus collection {self.name} is missing or incomplete: its export is running or "
                f"was interrupted; {self._remedy}"
            )
        return state

    async def write_state(self, state: CollectionState) -> None:
        """Writes the state of the collection; raises if others took over."""
        await self._states.write(self.name, state, writer=self._writer, timeout_s=WRITE_S)

    def mark_unsure(self) -> None:
        """Notes that a write failed; the collection is loaded again before the next one."""
        self._unsure = True

    def set_back(self, reason: str) -> None:
        """Notes that the log has lost changes, some of which may be in Milvus."""
        self._lost = self._lost or reason

    def publish(self, state: CollectionState) -> None:
        """Makes reads see the rows that a state covers."""
        context = self._context
        if state.seen is not None:
            known = context.seen or 0
            context.seen = max(known, state.seen) if state.seen else 0
        context.expiring |= state.expiring
        context.single_valued &= state.single_valued

    def expect(self, entries: Sequence[ChangeEntry]) -> None:
        """Prepares reads for the changes of entries before any of them is written."""
        self._context.expiring |= any_expires(entries)
        self._context.single_valued -= list_attributes(entries)

    async def check(self, state: CollectionState, at: Watermark, log: ChangeLog) -> None:
        """Checks that the changes in Milvus come from a log or from one of its predecessors.

        Args:
            state: Current state of the collection.
            at: Log position of Milvus.
            log: The log to follow.
        Raises: SnapshotMismatch: They do not; names the remedy. Any error of the log or of Milvus.
        """
        if state.log_id == at.log_id:
            head = (await log.state()).head
            if head.log_id == at.log_id and not head.covers(at):
                self.set_back(
                    f"change log {at.log_id} ends before the position that Milvus has reached"
                )
        if self._lost and state.log_id and not state.lost:
            newest = await self.take_over()
            if newest.started_us == state.started_us:
                state = replace(newest, lost=self._lost)
                await self.write_state(state)
        # A new export does not contain the lost changes.
        self._lost = ""
        if state.lost:
            raise SnapshotMismatch(
                f"Milvus collection {self.name} has live changes that the log has lost "
                f"({state.lost}); {self._remedy} --again"
            )
        if state.log_id in ("", at.log_id):
            return
        if state.log_id not in await asyncio.to_thread(self._read_logs):
            raise SnapshotMismatch(
                f"Milvus collection {self.name} has live changes of change log {state.log_id}, but "
                f"the current log {at.log_id} does not continue it; {self._remedy} --again, or "
                "bring back the Redis that holds the other log"
            )
        _log.warning(
            "milvus keeps live changes of a previous log, including those that no snapshot has",
            extra={"milvus_collection": self.name, "log_id": state.log_id, "now": at.log_id},
        )


def any_expires(entries: Iterable[ChangeEntry]) -> bool:
    """Returns whether an entry sets an expiry."""
    return any(entry.change.expires is not None for entry in entries)


def list_attributes(entries: Iterable[ChangeEntry]) -> frozenset[str]:
    """Returns the attributes for which entries have lists."""
    return frozenset(
        name
        for entry in entries
        if entry.change.kind is not ChangeKind.DELETE
        for name, value in entry.change.attributes.items()
        if isinstance(value, list)
    )
