"""Blocking clients for notebooks, scripts and threads: the async clients behind plain calls."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from nearline.clients import (
    AdminClient,
    EmbeddingClient,
    GenerationClient,
    IngestClient,
    RetrievalClient,
)
from nearline.clients.client import AsyncClient
from nearline.clients.collections import AsyncCollections
from nearline.contract import DEFAULT_COLLECTION, Lane
from nearline.tls import TlsFiles


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C")
_Wrapped = TypeVar("_Wrapped", covariant=True)
_Closing = TypeVar("_Closing", bound=_Closable, covariant=True)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Batch = TypeVar("_Batch")


class _Loop:
    """One event loop in one thread for the whole process.

    grpc.aio has one poller per process; a loop per client would starve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, work: Coroutine[Any, Any, _R]) -> Future[_R]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="nearline-client", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        future = self.start(work)
        try:
            return future.result()
        finally:
            # Cancels the call where the caller is interrupted; does nothing once it has ended.
            future.cancel()


_loop = _Loop()


class BlockingCalls(Generic[_Wrapped]):
    """Base of what has the methods and errors of an async object, as plain calls.

    Args:
        connect: Makes the async object; called on its event loop.
    """

    def __init__(self, connect: Callable[[], _Wrapped]) -> None:
        async def connected() -> _Wrapped:
            return connect()

        self._client: _Wrapped = _loop.run(connected())

    @classmethod
    def _of(cls, connect: Callable[[], _Wrapped]) -> Self:
        client = cls.__new__(cls)
        BlockingCalls.__init__(client, connect)
        return client


class BlockingClient(BlockingCalls[_Closing]):
    """Base of the blocking clients.

    Safe to share between threads. Close it, or use it as a context manager.

    Args:
        connect: Makes the async client; called on its event loop.
    """

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        _loop.run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _call(
    method: Callable[Concatenate[_C, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[BlockingCalls[_C], _P], _R]:
    """Returns a method of an async client as a method that waits for the reply."""

    @functools.wraps(method)
    def call(self: BlockingCalls[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return _loop.run(method(self._client, *args, **kwargs))

    return call


def _stream(
    method: Callable[Concatenate[_C, _P], AsyncGenerator[_R, None]],
) -> Callable[Concatenate[BlockingCalls[_C], _P], Iterator[_R]]:
    """Returns a stream of an async client as an iterator; leaving it cancels the call."""

    @functools.wraps(method)
    def stream(self: BlockingCalls[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_R]:
        values = method(self._client, *args, **kwargs)

        async def following() -> tuple[_R, ...]:
            async for value in values:
                return (value,)
            return ()

        try:
            while value := _loop.run(following()):
                yield value[0]
        finally:
            # Not awaited: while the interpreter exits, the loop's thread no longer runs.
            _loop.start(_close(values))

    return stream


def _feed(
    method: Callable[Concatenate[_C, AsyncIterator[_Batch], _P], _R],
) -> Callable[Concatenate[_C, Iterable[_Batch], _P], _R]:
    """Returns a method that takes its batches from a plain iterable."""

    @functools.wraps(method)
    def feed(client: _C, batches: Iterable[_Batch], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(client, _read(batches), *args, **kwargs)

    # They may be named, too, which the type cannot say.
    return feed  # type: ignore[return-value]


async def _read(batches: Iterable[_Batch]) -> AsyncIterator[_Batch]:
    """Reads batches in a thread, since reading may take a while."""
    reader = iter(batches)
    while (batch := await asyncio.to_thread(next, reader, None)) is not None:
        yield batch


async def _close(values: AsyncGenerator[Any, None]) -> None:
    await values.aclose()


class BlockingRetrievalClient(BlockingClient[RetrievalClient]):
    """`RetrievalClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls, lane: See `ServiceChannel`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        lane: Lane | str = Lane.INTERACTIVE,
    ) -> None:
        super().__init__(lambda: RetrievalClient(address, token=token, tls=tls, lane=lane))

    search = _call(RetrievalClient.search)
    search_batch = _call(RetrievalClient.search_batch)
    get_items = _call(RetrievalClient.get_items)
    list_items = _call(RetrievalClient.list_items)
    items = _stream(RetrievalClient.items)
    count_items = _call(RetrievalClient.count_items)
    upsert_items = _call(RetrievalClient.upsert_items)
    delete_items = _call(RetrievalClient.delete_items)
    delete_matching = _call(RetrievalClient.delete_matching)
    upsert_batches = _call(_feed(RetrievalClient.upsert_batches))
    delete_batches = _call(_feed(RetrievalClient.delete_batches))
    recommend = _call(RetrievalClient.recommend)
    record_interactions = _call(RetrievalClient.record_interactions)
    get_user = _call(RetrievalClient.get_user)
    delete_user = _call(RetrievalClient.delete_user)


class BlockingIngestClient(BlockingClient[IngestClient]):
    """`IngestClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: IngestClient(address, token=token, tls=tls))

    submit = _call(IngestClient.submit)
    job = _call(IngestClient.job)
    watch = _stream(IngestClient.watch)
    wait = _call(IngestClient.wait)
    jobs = _call(IngestClient.jobs)
    cancel = _call(IngestClient.cancel)
    results = _call(IngestClient.results)
    dead_letters = _call(IngestClient.dead_letters)
    requeue = _call(IngestClient.requeue)
    delete_dead_letters = _call(IngestClient.delete_dead_letters)
    queue = _call(IngestClient.queue)


class BlockingEmbeddingClient(BlockingClient[EmbeddingClient]):
    """`EmbeddingClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: EmbeddingClient(address, token=token, tls=tls))

    embed = _call(EmbeddingClient.embed)
    embed_stream = _stream(_feed(EmbeddingClient.embed_stream))
    rerank = _call(EmbeddingClient.rerank)
    entail = _call(EmbeddingClient.entail)
    info = _call(EmbeddingClient.info)


class BlockingGenerationClient(BlockingClient[GenerationClient]):
    """`GenerationClient` without async.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: GenerationClient(address, token=token, tls=tls))

    generate = _stream(GenerationClient.generate)
    verify = _call(GenerationClient.verify)
    session = _call(GenerationClient.session)
    delete_session = _call(GenerationClient.delete_session)


class BlockingAdminClient(BlockingClient[AdminClient]):
    """`AdminClient` without async.

    Args:
        address: "host:port" of the router.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(lambda: AdminClient(address, token=token, tls=tls))

    serving_status = _call(AdminClient.serving_status)
    create_collection = _call(AdminClient.create_collection)
    collections = _stream(AdminClient.collections)
    collection = _call(AdminClient.collection)
    drop_collection = _call(AdminClient.drop_collection)
    snapshots = _stream(AdminClient.snapshots)
    snapshot = _call(AdminClient.snapshot)
    aliases = _call(AdminClient.aliases)
    promote = _call(AdminClient.promote)
    split = _call(AdminClient.split)
    rollout_status = _call(AdminClient.rollout_status)
    roll_back = _call(AdminClient.roll_back)


class Collections(BlockingCalls[AsyncCollections]):
    """The collections that a service has; `Client.collections`."""

    create = _call(AsyncCollections.create)
    list = _call(AsyncCollections.list)
    get = _call(AsyncCollections.get)
    drop = _call(AsyncCollections.drop)


class Client(BlockingClient[AsyncClient]):
    """Client of everything that one address serves; `AsyncClient` is the same for async programs.

    It takes what people write: texts for queries and enums, filters as texts or dicts, lists and
    numpy's values. Searches, lists and items come with their titles and texts. Reads include all
    earlier writes of the same client. Safe to share between threads. Close it, or use it as a
    context manager.

    Args:
        address: "host:port" of the router, which passes calls of other services on to them.
        token, tls, collection, own_writes, lane, generation, ingest, embedding: See `AsyncClient`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        collection: str = DEFAULT_COLLECTION,
        own_writes: bool = True,
        lane: Lane | str = Lane.INTERACTIVE,
        generation: str = "",
        ingest: str = "",
        embedding: str = "",
    ) -> None:
        super().__init__(
            lambda: AsyncClient(
                address,
                token=token,
                tls=tls,
                collection=collection,
                own_writes=own_writes,
                lane=lane,
                generation=generation,
                ingest=ingest,
                embedding=embedding,
            )
        )

    search = _call(AsyncClient.search)
    search_batch = _call(AsyncClient.search_batch)
    recommend = _call(AsyncClient.recommend)
    get = _call(AsyncClient.get)
    items = _stream(AsyncClient.items)
    count = _call(AsyncClient.count)
    upsert = _call(AsyncClient.upsert)
    upsert_batches = _call(_feed(AsyncClient.upsert_batches))
    upsert_frame = _call(AsyncClient.upsert_frame)
    delete = _call(AsyncClient.delete)
    delete_matching = _call(AsyncClient.delete_matching)
    delete_batches = _call(_feed(AsyncClient.delete_batches))
    record = _call(AsyncClient.record)
    user = _call(AsyncClient.user)
    delete_user = _call(AsyncClient.delete_user)
    ask = _call(AsyncClient.ask)
    ask_stream = _stream(AsyncClient.ask_stream)
    verify = _call(AsyncClient.verify)
    embed = _call(AsyncClient.embed)
    rerank = _call(AsyncClient.rerank)
    submit = _call(AsyncClient.submit)
    job = _call(AsyncClient.job)
    wait = _call(AsyncClient.wait)
    status = _call(AsyncClient.status)

    @property
    def collections(self) -> Collections:
        """See `AsyncClient.collections`."""
        return Collections._of(lambda: self._client.collections)

    @property
    def retrieval(self) -> BlockingRetrievalClient:
        """See `AsyncClient.retrieval`."""
        return BlockingRetrievalClient._of(lambda: self._client.retrieval)

    @property
    def generation(self) -> BlockingGenerationClient:
        """See `AsyncClient.generation`."""
        return BlockingGenerationClient._of(lambda: self._client.generation)

    @property
    def ingest(self) -> BlockingIngestClient:
        """See `AsyncClient.ingest`."""
        return BlockingIngestClient._of(lambda: self._client.ingest)

    @property
    def embedding(self) -> BlockingEmbeddingClient:
        """See `AsyncClient.embedding`."""
        return BlockingEmbeddingClient._of(lambda: self._client.embedding)

    @property
    def admin(self) -> BlockingAdminClient:
        """See `AsyncClient.admin`."""
        return BlockingAdminClient._of(lambda: self._client.admin)
