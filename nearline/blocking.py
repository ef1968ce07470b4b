"""Thin blocking clients for notebooks and scripts, on a private event loop in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from nearline import contract as c
from nearline.clients import (
    ALL_BUT_VECTOR,
    DEFAULT_LIST,
    DEFAULT_OPTIONS,
    IngestClient,
    RetrievalClient,
)

_Reply = TypeVar("_Reply")
_Batch = TypeVar("_Batch")


class _Loop:
    """One event loop for the whole process.

    grpc.aio has one poller per process; a loop per client would starve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, _Reply]) -> _Reply:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="nearline-client", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_loop = _Loop()


async def _fed(batches: Iterable[_Batch]) -> AsyncIterator[_Batch]:
    """Reads batches in a thread, since reading may take a while."""
    reader = iter(batches)
    while (batch := await asyncio.to_thread(next, reader, None)) is not None:
        yield batch


class _ClosableClient:
    """Closes a client at the end of a block."""

    _client: IngestClient | RetrievalClient

    def close(self) -> None:
        """Closes the connection."""
        _loop.run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlockingRetrievalClient(_ClosableClient):
    """RetrievalClient without async; same methods, same errors. Safe to share between threads.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        async def connect() -> RetrievalClient:
            return RetrievalClient(address)

        self._client: RetrievalClient = _loop.run(connect())

    def search(
        self,
        query: c.Query,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for one query; see `Retriever.search`."""
        return _loop.run(
            self._client.search(query, options, collection=collection, timeout_s=timeout_s)
        )

    def search_batch(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for 1..1024 queries, all from one snapshot."""
        return _loop.run(
            self._client.search_batch(queries, options, collection=collection, timeout_s=timeout_s)
        )

    def get_items(
        self,
        ids: Sequence[str],
        payload: Iterable[c.PayloadField] = ALL_BUT_VECTOR,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Reads items by id; ids that do not exist are in `ignored_ids`."""
        return _loop.run(
            self._client.get_items(
                ids,
                payload,
                collection=collection,
                min_watermark=min_watermark,
                timeout_s=timeout_s,
            )
        )

    def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Reads a page of items in id order; see `Retriever.list_items`."""
        return _loop.run(
            self._client.list_items(
                page_size=page_size,
                page_token=page_token,
                filter=filter,
                payload=payload,
                collection=collection,
                min_watermark=min_watermark,
                timeout_s=timeout_s,
            )
        )

    def items(
        self,
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> Iterator[c.Item]:
        """Yields all items that match, in id order, page by page, from one snapshot."""
        pages = self._client.items(filter, payload, collection=collection)
        while True:
            try:
                yield _loop.run(anext(pages))  # type: ignore[arg-type]
            except StopAsyncIteration:
                return

    def count_items(
        self,
        filter: c.Filter | None = None,
        facets: Sequence[c.Facet] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and values of attributes; see `Retriever.count_items`."""
        return _loop.run(
            self._client.count_items(
                filter,
                facets,
                collection=collection,
                min_watermark=min_watermark,
                timeout_s=timeout_s,
            )
        )

    def upsert_items(
        self,
        items: Sequence[c.Item],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        only_attributes: bool = False,
        as_of: Mapping[str, datetime] | None = None,
        lane: c.Lane | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Adds or replaces 1..1024 items; see `RetrievalClient.upsert_items`."""
        return _loop.run(
            self._client.upsert_items(
                items,
                collection=collection,
                if_versions=if_versions,
                idempotency_key=idempotency_key,
                only_attributes=only_attributes,
                as_of=as_of,
                lane=lane,
                timeout_s=timeout_s,
            )
        )

    def delete_items(
        self,
        ids: Sequence[str],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Deletes 1..1024 items; see `RetrievalClient.delete_items`."""
        return _loop.run(
            self._client.delete_items(
                ids,
                collection=collection,
                if_versions=if_versions,
                idempotency_key=idempotency_key,
                timeout_s=timeout_s,
            )
        )

    def upsert_batches(
        self, batches: Iterable[Sequence[c.Item]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Adds or replaces the items of many batches; see `RetrievalClient.upsert_batches`."""
        return _loop.run(self._client.upsert_batches(_fed(batches), collection=collection))

    def delete_batches(
        self, batches: Iterable[Sequence[str]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Deletes the items of many batches; see `RetrievalClient.delete_batches`."""
        return _loop.run(self._client.delete_batches(_fed(batches), collection=collection))

    def recommend(
        self,
        audience: c.Audience,
        options: c.RecommendOptions = DEFAULT_LIST,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Makes a list; see `Recommender.recommend`."""
        return _loop.run(
            self._client.recommend(audience, options, collection=collection, timeout_s=timeout_s)
        )

    def record_interactions(
        self,
        interactions: Sequence[c.Interaction],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.RecordReply:
        """Stores 1..1024 interactions; see `RetrievalClient.record_interactions`."""
        return _loop.run(
            self._client.record_interactions(
                interactions,
                collection=collection,
                idempotency_key=idempotency_key,
                timeout_s=timeout_s,
            )
        )

    def get_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.UserRecord:
        """Reads all that is kept of a user; see `Recommender.get_user`."""
        return _loop.run(self._client.get_user(user_id, collection=collection, timeout_s=timeout_s))

    def delete_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.DeletionReceipt:
        """Erases what is kept of a user; see `Recommender.delete_user`."""
        return _loop.run(
            self._client.delete_user(user_id, collection=collection, timeout_s=timeout_s)
        )


class BlockingIngestClient(_ClosableClient):
    """IngestClient without async; same methods, same errors. Safe to share between threads.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        async def connect() -> IngestClient:
            return IngestClient(address)

        self._client: IngestClient = _loop.run(connect())

    def submit(
        self,
        sources: Sequence[c.IngestSource],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        tenant: str = c.DEFAULT_TENANT,
        priority: c.JobPriority = c.JobPriority.NORMAL,
        callback_id: str = "",
        job_id: str = "",
        offset: int = 0,
        more: bool = False,
        result_ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> c.Job:
        """Puts 1..1024 sources into the queue; see `Ingestor.submit`."""
        return _loop.run(
            self._client.submit(
                sources,
                collection=collection,
                tenant=tenant,
                priority=priority,
                callback_id=callback_id,
                job_id=job_id,
                offset=offset,
                more=more,
                result_ttl_s=result_ttl_s,
                timeout_s=timeout_s,
            )
        )

    def job(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Returns a job; see `Ingestor.job`."""
        return _loop.run(self._client.job(job_id, timeout_s=timeout_s))

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Waits until a job has ended; gives it as it is then.

        Raises: DeadlineExceeded: it did not end within timeout_s; None waits for ever.
        """

        async def last() -> c.Job:
            async for job in self._client.watch(job_id, timeout_s=timeout_s):
                seen = job
            return seen

        return _loop.run(last())

    def cancel(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Cancels what of a job is not processed yet."""
        return _loop.run(self._client.cancel(job_id, timeout_s=timeout_s))

    def results(
        self, job_id: str, *, page_size: int = 0, token: str = "", timeout_s: float | None = None
    ) -> c.ResultPage:
        """Lists what became of the documents of a job; see `Ingestor.results`."""
        return _loop.run(
            self._client.results(job_id, page_size=page_size, token=token, timeout_s=timeout_s)
        )
