"""Writes of the client for all services."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from nearline import contract as c
from nearline.clients.arguments import converts_arguments
from nearline.clients.frames import FrameRows
from nearline.clients.own_writes import merge_watermarks
from nearline.clients.progress import ProgressLine
from nearline.clients.service_clients import ServiceClients
from nearline.errors import NearlineError
from nearline.retry import retry_while_unavailable

# A batch of long texts may need embedding by few cores.
_BATCH_TIMEOUT_S: Final = 600.0
_MAX_REJECTIONS: Final = 1_000


@converts_arguments
class ClientWrites(ServiceClients):
    """Methods of `AsyncClient` that change items and users, and the document queue."""

    async def upsert(
        self,
        items: Sequence[c.Item],
        *,
        only_attributes: bool = False,
        if_versions: Mapping[str, int] | None = None,
        as_of: Mapping[str, datetime] | None = None,
        idempotency_key: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Adds or replaces 1..1024 items; returns when they are durable.

        See `ItemWriter.upsert_items`; for more items, `upsert_batches` and `upsert_frame`.
        """
        name = self._name(collection)
        reply = await self.retrieval.upsert_items(
            items,
            collection=name,
            if_versions=if_versions,
            idempotency_key=idempotency_key,
            only_attributes=only_attributes,
            as_of=as_of,
            timeout_s=timeout_s,
        )
        self._writes.note(name, reply.watermark)
        return reply

    async def upsert_batches(
        self, batches: AsyncIterable[Sequence[c.Item]], *, collection: str | None = None
    ) -> c.BulkWriteReply:
        """Adds or replaces the items of many batches; see `RetrievalClient.upsert_batches`."""
        name = self._name(collection)
        reply = await self.retrieval.upsert_batches(batches, collection=name)
        self._writes.note(name, reply.watermark)
        return reply

    async def upsert_frame(
        self,
        frame: Any,
        *,
        id: str = "id",
        text: str | None = None,
        title: str | None = None,
        vector: str | None = None,
        attributes: Sequence[str] | None = None,
        progress: bool = True,
        collection: str | None = None,
    ) -> c.BulkWriteReply:
        """Adds or replaces the rows of a table of pandas, polars or Arrow, however many.

        Missing values are left out: null, and in pandas NaN, too. While the service is overloaded
        or restarts, the call waits.

        Args:
            frame: The table. Needs narwhals: `pip install 'nearline[frames]'`.
            id: Column of ids.
            text, title, vector: Columns. Optional; None takes those of that name if there are any.
            attributes: Columns that become attributes. Optional; None takes all others.
            progress: Whether a terminal or a notebook shows how far it is, after two seconds.
            collection: Optional; None takes that of the client.
        Returns: Counts by outcome, and the first 1,000 rejections.
        Raises: InvalidRequest: a value cannot be stored; names the row, from 0, and the column.
            Rows before it, of earlier batches of up to 256 rows, are stored. Unsupported: narwhals
            is not installed. And see `ItemWriter.upsert_items`.
        """
        rows = FrameRows(frame, id=id, text=text, title=title, vector=vector, attributes=attributes)
        tally = _Tally()
        batches = rows.batches()
        with ProgressLine("rows", shown=progress) as line:
            # In a thread, since columns are converted.
            while batch := await asyncio.to_thread(next, batches, None):
                end = batch.first + len(batch.items)
                try:
                    tally.add(await upsert_batch(self, batch.items, collection=collection))
                except NearlineError as error:
                    raise error.with_message(
                        f"rows {batch.first}..{end - 1}, counted from 0: {error.message}"
                    ) from error
                line.reach(end, len(rows))
        return tally.reply()

    async def delete(
        self,
        ids: Iterable[c.Id],
        *,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Deletes 1..1024 items by id; ids that do not exist are not an error."""
        name = self._name(collection)
        reply = await self.retrieval.delete_items(
            ids,
            collection=name,
            if_versions=if_versions,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
        )
        self._writes.note(name, reply.watermark)
        return reply

    async def delete_matching(
        self, filter: c.FilterLike, *, collection: str | None = None, timeout_s: float | None = None
    ) -> c.FilteredDeletion:
        """Deletes all items that match a filter; see `RetrievalClient.delete_matching`."""
        name = self._name(collection)

        async def delete(watermark: bytes) -> c.FilteredDeletion:
            return await self.retrieval.delete_matching(
                filter, collection=name, min_watermark=watermark, timeout_s=timeout_s
            )

        reply = await self._writes.read(name, b"", delete)
        self._writes.note(name, reply.watermark)
        return reply

    async def delete_batches(
        self, batches: AsyncIterable[Sequence[c.Id]], *, collection: str | None = None
    ) -> c.BulkWriteReply:
        """Deletes the items of many batches of ids; see `RetrievalClient.upsert_batches`."""
        name = self._name(collection)
        reply = await self.retrieval.delete_batches(batches, collection=name)
        self._writes.note(name, reply.watermark)
        return reply

    async def record(
        self,
        interactions: Sequence[c.Interaction],
        *,
        idempotency_key: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.RecordReply:
        """Stores 1..1024 interactions; see `Recommender.record_interactions`."""
        return await self.retrieval.record_interactions(
            interactions,
            collection=self._name(collection),
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
        )

    async def import_interactions(
        self,
        batches: AsyncIterable[c.InteractionColumns],
        *,
        import_id: str,
        first_row: int = 0,
        collection: str | None = None,
    ) -> c.ImportReply:
        """Stores interactions of the past; see `Recommender.import_interactions`."""
        return await self.retrieval.import_interactions(
            batches,
            import_id=import_id,
            first_row=first_row,
            collection=self._name(collection),
        )

    async def set_user(
        self,
        user_id: c.Id,
        attributes: c.Attributes,
        *,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Sets the attributes of a user, such as {"country": "DE"}, in place of earlier ones."""
        await self.retrieval.set_user(
            user_id, attributes, collection=self._name(collection), timeout_s=timeout_s
        )

    async def user(
        self, user_id: c.Id, *, collection: str | None = None, timeout_s: float | None = None
    ) -> c.UserRecord:
        """Returns the stored data of a user, with the newest 10,000 recorded interactions."""
        return await self.retrieval.get_user(
            user_id, collection=self._name(collection), timeout_s=timeout_s
        )

    async def delete_user(
        self, user_id: c.Id, *, collection: str | None = None, timeout_s: float | None = None
    ) -> c.DeletionReceipt:
        """Deletes all stored data of a user."""
        return await self.retrieval.delete_user(
            user_id, collection=self._name(collection), timeout_s=timeout_s
        )

    async def submit(
        self,
        sources: Sequence[c.IngestSource],
        *,
        priority: c.JobPriority | str = c.JobPriority.NORMAL,
        job_id: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.Job:
        """Submits 1..1024 files, addresses or items to the queue; see `Ingestor.submit`."""
        return await self.ingest.submit(
            sources,
            collection=self._name(collection),
            priority=priority,
            job_id=job_id,
            timeout_s=timeout_s,
        )

    async def job(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Returns a job of the queue."""
        return self._noted(await self.ingest.job(job_id, timeout_s=timeout_s))

    async def wait(
        self, job_id: str, *, timeout_s: float | None = None, progress: bool = True
    ) -> c.Job:
        """Waits until a job has ended; returns its last state. Later reads include its writes.

        Args:
            job_id: The job.
            timeout_s: Longest wait in seconds. Optional; None disables the limit.
            progress: Whether a terminal or a notebook shows how far it is, after two seconds.
        Raises: NotFound: there is no such job. DeadlineExceeded: it did not end in time.
        """
        with ProgressLine("documents", shown=progress) as line:
            async for job in self.ingest.watch(job_id, timeout_s=timeout_s):
                line.reach(job.documents - job.left, job.documents)
                last = self._noted(job)
        return last

    def _noted(self, job: c.Job) -> c.Job:
        self._writes.note(job.collection, job.watermark)
        return job


async def upsert_batch(
    client: ClientWrites,
    items: Sequence[c.Item],
    *,
    only_attributes: bool = False,
    collection: str | None = None,
) -> c.WriteReply:
    """Adds or replaces 1..1024 items once; waits while the service is overloaded or restarts.

    Raises: See `ItemWriter.upsert_items`, and `retry_while_unavailable`.
    """
    write = partial(
        client.upsert,
        items,
        only_attributes=only_attributes,
        idempotency_key=secrets.token_hex(16),
        collection=collection,
        timeout_s=_BATCH_TIMEOUT_S,
    )
    return await retry_while_unavailable(write)


class _Tally:
    """Outcomes of the batches so far."""

    def __init__(self) -> None:
        self._counts: Counter[c.WriteOutcome] = Counter()
        self._rejections: list[c.WriteResult] = []
        self._watermark = b""

    def add(self, reply: c.WriteReply) -> None:
        self._counts.update(one.outcome for one in reply.results)
        rejected = [one for one in reply.results if one.outcome is c.WriteOutcome.REJECTED]
        self._rejections += rejected[: _MAX_REJECTIONS - len(self._rejections)]
        if reply.watermark:
            self._watermark = merge_watermarks(reply.watermark, self._watermark)

    def reply(self) -> c.BulkWriteReply:
        return c.BulkWriteReply(
            watermark=self._watermark, counts=dict(self._counts), rejections=self._rejections
        )
