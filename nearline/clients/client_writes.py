"""Writes of the client for all services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from nearline import contract as c
from nearline.clients.arguments import converts_arguments
from nearline.clients.service_clients import ServiceClients


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

    async def user(
        self, user_id: c.Id, *, collection: str | None = None, timeout_s: float | None = None
    ) -> c.UserRecord:
        """Returns all stored data of a user."""
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

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Waits until a job has ended; returns its last state. Later reads include its writes.

        timeout_s: Longest wait in seconds. Optional; None disables the limit.

        Raises: NotFound: there is no such job. DeadlineExceeded: it did not end in time.
        """
        return self._noted(await self.ingest.wait(job_id, timeout_s=timeout_s))

    def _noted(self, job: c.Job) -> c.Job:
        self._writes.note(job.collection, job.watermark)
        return job
