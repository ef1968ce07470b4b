"""What is known of the live changes of one snapshot in Milvus: in its state, and to its reads."""

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
from retrieval.milvus.lease import Lease
from retrieval.milvus.reader import ReadContext
from retrieval.protocols.watermark import Watermark

_log = logging.getLogger(__name__)


class LiveCollection:
    """A collection of Milvus that live changes are written into; belongs to one event loop.

    Args:
        client: The Milvus.
        name: The collection of it.
        context: What reads must know of it; changed here.
        merger: Puts changes together for the snapshot.
        new_lease: Gives the right to write into what was begun at some time, see
            `CollectionState`; None: nobody writes here, since no log is followed.
        logs: Reads which logs the store names, in a thread; see `Following`.
        remedy: What to do where it has to be written again, for errors.
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

    async def close(self) -> None:
        """Gives up the right to write; it may be asked for again."""
        if self._lease is not None:
            await self._lease[1].release()

    async def lease(self, state: CollectionState) -> Lease:
        """Returns the right to write into what a state is of; for a new export it is another
        one."""
        assert self._new_lease is not None, "without a lease no log is followed"
        if self._lease is None or self._lease[0] != state.started_us:
            await self.close()
            self._lease = state.started_us, self._new_lease(state.started_us)
        return self._lease[1]

    def document_writer(
        self, state: CollectionState, check_lease: Callable[[], None]
    ) -> DocumentWriter:
        """Returns what writes documents."""
        return DocumentWriter(
            self._client, self.name, self.merger, words=state.words, check_lease=check_lease
        )

    async def read_state(self, *, newest: bool = True) -> CollectionState:
        """Reads the state.

        Raises: NotReady: it is not there, or not all of the snapshot is; and as the client.
        """
        if self._unsure:
            # A server that was started again has nothing loaded.
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
                f"Milvus collection {self.name} is not there, or not wholly: it is being written, "
                f"or that was interrupted; {self._remedy}"
            )
        return state

    async def write_state(self, state: CollectionState) -> None:
        """Writes the state."""
        await self._states.write(self.name, state, timeout_s=WRITE_S)

    def mark_unsure(self) -> None:
        """Takes in that a write failed: before the next one it is seen to that all is loaded."""
        self._unsure = True

    def set_back(self, reason: str) -> None:
        """Takes in that the log has lost changes, some of which may be in Milvus."""
        self._lost = self._lost or reason

    def publish(self, state: CollectionState) -> None:
        """Has reads see what a state says that there is."""
        context = self._context
        if state.seen is not None:
            known = context.seen or 0
            context.seen = max(known, state.seen) if state.seen else 0
        context.expiring |= state.expiring
        context.single_valued &= state.single_valued

    def expect(self, entries: Sequence[ChangeEntry]) -> None:
        """Has reads be ready for what entries bring, before any of it is there."""
        self._context.expiring |= any_expires(entries)
        self._context.single_valued -= list_attributes(entries)

    async def check(self, state: CollectionState, at: Watermark, log: ChangeLog) -> None:
        """Checks that the changes in Milvus are those of a log, or of one that it goes on from.

        Args:
            state: As it was read just now.
            at: How far Milvus has the log.
        Raises: SnapshotMismatch: they are not; names the remedy. What the log and Milvus raise.
        """
        if state.log_id == at.log_id:
            head = (await log.state()).head
            if head.log_id == at.log_id and not head.covers(at):
                self.set_back(f"change log {at.log_id} ends before what Milvus has of it")
        if self._lost and state.log_id and not state.lost:
            state = replace(state, lost=self._lost)
            await self.write_state(state)
        # What will have been written again has none of it.
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
                f"Milvus collection {self.name} has live changes of change log {state.log_id}, "
                f"{at.log_id} is in force and does not go on from that; {self._remedy} --again, or "
                "bring back the Redis that holds the other log"
            )
        _log.warning(
            "milvus keeps live changes of a log before, also those that no snapshot has",
            extra={"milvus_collection": self.name, "log_id": state.log_id, "now": at.log_id},
        )


def any_expires(entries: Iterable[ChangeEntry]) -> bool:
    """Returns whether an entry brings what expires."""
    return any(entry.change.expires is not None for entry in entries)


def list_attributes(entries: Iterable[ChangeEntry]) -> frozenset[str]:
    """Returns the attributes of which entries have lists."""
    return frozenset(
        name
        for entry in entries
        if entry.change.kind is not ChangeKind.DELETE
        for name, value in entry.change.attributes.items()
        if isinstance(value, list)
    )
