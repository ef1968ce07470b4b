"""One async client for all services."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import os
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeAlias, TypeVar, cast

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients.admin import NO_ATTRIBUTES, NO_LANGUAGES, NO_WEIGHTS, AdminClient
from nearline.clients.arguments import converts_arguments
from nearline.clients.embedding import EmbeddingClient
from nearline.clients.frames import FrameRows, Tally, upsert_batch
from nearline.clients.generation import GenerationClient
from nearline.clients.ingest import IngestClient
from nearline.clients.local_services import LocalServices
from nearline.clients.own_writes import OwnWrites
from nearline.clients.progress import ProgressLine
from nearline.clients.retrieval import (
    ALL_BUT_VECTOR,
    DEFAULT_LIST,
    DEFAULT_OPTIONS,
    RetrievalClient,
    pages,
)
from nearline.errors import AlreadyExists, InvalidRequest, NearlineError
from nearline.tls import TlsFiles
from nearline.v1 import admin_pb2

# The first start of a model may convert it, and measure what serves it best.
START_TIMEOUT_S: Final = 300.0
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Service = TypeVar("_Service", bound=ServiceChannel)
_Options = TypeVar("_Options", c.SearchOptions, c.RecommendOptions, c.Question)
_Begun: TypeAlias = tuple[AsyncGenerator[c.AnswerEvent, None], c.AnswerEvent]


def _of(
    kind: type[_Service], method: Callable[Concatenate[_Service, _P], Coroutine[Any, Any, _R]]
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _R]]:
    """Returns a method of a service's client as a method of the client for all services.

    It takes the collection of the client by default, its reads include the client's own writes,
    and its writes are remembered.
    """
    # Its arguments are converted once, by the client for all services.
    send = cast(Callable[..., Coroutine[Any, Any, _R]], inspect.unwrap(method))
    signature = inspect.signature(method)

    @wraps(send)
    async def called(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        service, more = self._service(kind), dict[str, Any](kwargs)
        if "collection" not in signature.parameters:
            return await send(service, *args, **more)
        name = more["collection"] = self._name(more.get("collection"))
        if "min_watermark" in signature.parameters:
            given = more.pop("min_watermark", b"")

            def read(watermark: bytes) -> Awaitable[_R]:
                return send(service, *args, min_watermark=watermark, **more)

            reply = await self._writes.read(name, given, read)
        else:
            reply = await send(service, *args, **more)
        if isinstance(reply, c.WriteReply | c.BulkWriteReply | c.FilteredDeletion):
            self._writes.note(name, reply.watermark)
        return reply

    if "collection" in signature.parameters:
        called.__annotations__["collection"] = "str | None"
        parameters = signature.parameters | {
            "collection": signature.parameters["collection"].replace(
                default=None, annotation="str | None"
            )
        }
        called.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    return cast(Any, called)  # type: ignore[no-any-return]


class AsyncCollections:
    """The collections that a service has; `AsyncClient.collections`.

    admin: Client of the admin service.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    @staticmethod
    def _of(
        method: Callable[Concatenate[AdminClient, _P], Coroutine[Any, Any, _R]],
    ) -> Callable[Concatenate[AsyncCollections, _P], Coroutine[Any, Any, _R]]:
        @wraps(method)
        async def called(self: AsyncCollections, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            return await method(self._admin, *args, **kwargs)

        return called

    create = _of(AdminClient.create_collection)
    get = _of(AdminClient.collection)
    set_name = _of(AdminClient.set_collection_name)
    drop = _of(AdminClient.drop_collection)

    async def list(self) -> Sequence[admin_pb2.Collection]:
        """Returns the collections that the caller may read, by name."""
        return [one async for one in self._admin.collections()]


@converts_arguments
class AsyncClient:
    """Client of everything that one address serves; `Client` is the same without async.

    It takes what people write, as `RetrievalClient` does. Searches, lists and items come with their
    titles and texts. Reads include all earlier writes of the same client. Close it, or use it as an
    async context manager.

    Args:
        address: "host:port" of the router, which passes calls of other services on to them.
        token: API key or JSON Web Token; empty sends none. Optional; None takes NEARLINE_TOKEN.
        tls: Certificates; see `ServiceChannel`. Optional; None takes NEARLINE_TLS_CA and others.
        collection: Collection of every call that names none.
        own_writes: Whether reads wait until they include the writes of this client.
        lane: With "bulk", a crowded service answers interactive calls first.
        generation, ingest, embedding: Addresses of these services, if the router is older and does
            not pass calls on. Optional; empty takes `address`.
    """

    _local: LocalServices | None = None

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        collection: str = c.DEFAULT_COLLECTION,
        own_writes: bool = True,
        lane: c.Lane | str = c.Lane.INTERACTIVE,
        generation: str = "",
        ingest: str = "",
        embedding: str = "",
    ) -> None:
        self._connect = {
            RetrievalClient: partial(RetrievalClient, address, token=token, tls=tls, lane=lane),
            AdminClient: partial(AdminClient, address, token=token, tls=tls),
            GenerationClient: partial(
                GenerationClient, generation or address, token=token, tls=tls
            ),
            IngestClient: partial(IngestClient, ingest or address, token=token, tls=tls),
            EmbeddingClient: partial(EmbeddingClient, embedding or address, token=token, tls=tls),
        }
        self._address = address
        self._collection = collection
        self._writes = OwnWrites(remembered=own_writes)
        self._services: dict[type[ServiceChannel], ServiceChannel] = {}
        self._closed = False
        # At once, so that a wrong token or certificate is refused here.
        self._service(RetrievalClient)

    @classmethod
    async def embedded(
        cls,
        path: str | os.PathLike[str],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        search_weights: Mapping[str, float] = NO_WEIGHTS,
        search_languages: Mapping[str, str] = NO_LANGUAGES,
        synonyms: Sequence[str] = (),
        own_writes: bool = True,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Self:
        """Returns a client of services of its own, which run on this machine until it is closed.

        They are those of `nearline up`, as processes without output on free loopback ports, and end
        with this process at the latest, also when it is killed. Opening a folder again in the same
        process shares them. Needs `pip install 'nearline-server[standard]'`.

        Args:
            path: Folder of the collections; created if there is none.
            collection: Collection of every call that names none; created if there is none.
            attributes, search_weights, search_languages, synonyms: Of a new collection, see
                `AdminClient.create_collection`.
            own_writes: See `AsyncClient`.
            timeout_s: Longest wait until they serve, in seconds.
        Raises: Unsupported: the services are not installed. Conflict: another process has opened
            the folder. StoreError: the folder cannot be used. NotReady: they did not start.
        """
        services = await asyncio.to_thread(LocalServices.open, Path(path), timeout_s)
        try:
            client = cls(
                services.address,
                token="",
                tls=TlsFiles(),
                collection=collection,
                own_writes=own_writes,
            )
        except BaseException:
            await asyncio.to_thread(services.close)
            raise
        client._local = services
        try:
            with contextlib.suppress(AlreadyExists):
                await client.collections.create(
                    collection,
                    attributes=attributes,
                    search_weights=search_weights,
                    search_languages=search_languages,
                    synonyms=synonyms,
                )
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def retrieval(self) -> RetrievalClient:
        """The client of the retrieval service, with all its options; knows of no own writes."""
        return self._service(RetrievalClient)

    @property
    def generation(self) -> GenerationClient:
        """The client of the generation service: also stored conversations."""
        return self._service(GenerationClient)

    @property
    def ingest(self) -> IngestClient:
        """The client of the document queue: also lists of jobs, results and dead letters."""
        return self._service(IngestClient)

    @property
    def embedding(self) -> EmbeddingClient:
        """The client of the embedding service: also streams, entailment and its card."""
        return self._service(EmbeddingClient)

    @property
    def admin(self) -> AdminClient:
        """The client of the admin service: snapshots, promotion, rollouts."""
        return self._service(AdminClient)

    @property
    def collections(self) -> AsyncCollections:
        """The collections of the service: `create`, `list`, `get`, `set_name` and `drop`."""
        return AsyncCollections(self.admin)

    async def close(self) -> None:
        """Closes all connections; calls in flight are cancelled. Ends services of its own."""
        self._closed = True
        for service in self._services.values():
            await service.close()
        services, self._local = self._local, None
        if services is not None:
            await asyncio.to_thread(services.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def search(
        self,
        query: c.QueryLike,
        k: int | None = None,
        *,
        filter: c.FilterLike | None = None,
        mode: c.SearchMode | str | None = None,
        payload: c.PayloadLike | None = None,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        page_token: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for a text, a vector, or the items of a `Query`.

        Args:
            query: The query.
            k: Number of hits, 1..10000. Optional; None takes that of `options`, 10.
            filter: Which items may be found. Optional.
            mode: "dense", "lexical" or "hybrid". Optional; None leaves it to the service.
            payload: Parts of items to return. Optional; None takes titles and texts.
            options: Everything else; what is given by name counts more.
            page_token: `next_page_token` of the page before, for the hits after it.
            collection: Optional; None takes that of the client.
            timeout_s: Time limit in seconds. Optional; None takes 10.
        Raises: See `Retriever.search`.
        """
        wanted = _with_fields(options, {"k": k, "filter": filter, "mode": mode, "payload": payload})
        send = partial(self.retrieval.search, query, page_token=page_token)
        return await self._read(send, wanted, collection, timeout_s)

    async def search_batch(
        self,
        queries: Sequence[c.QueryLike],
        k: int | None = None,
        *,
        filter: c.FilterLike | None = None,
        mode: c.SearchMode | str | None = None,
        payload: c.PayloadLike | None = None,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for each of 1..1024 queries, from one snapshot; see `search`."""
        wanted = _with_fields(options, {"k": k, "filter": filter, "mode": mode, "payload": payload})
        send = partial(self.retrieval.search_batch, queries)
        return await self._read(send, wanted, collection, timeout_s)

    async def recommend(
        self,
        user_id: c.Id = "",
        n: int | None = None,
        *,
        item_ids: Iterable[c.Id] = (),
        session_id: str = "",
        surface: str = c.DEFAULT_SURFACE,
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike | None = None,
        options: c.RecommendOptions = DEFAULT_LIST,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Recommends a list for a user, a session, the page of an item, or anybody.

        Args:
            user_id: A known user; empty for none.
            n: Number of items, 1..1000. Optional; None takes that of `options`, 20.
            item_ids: Items to recommend others like.
            session_id: Session of a visitor; empty for none.
            surface: The place where the list is shown.
            filter: Which items may be listed. Optional.
            payload: Parts of items to return. Optional; None takes titles and texts.
            options: Everything else; what is given by name counts more.
            collection: Optional; None takes that of the client.
            timeout_s: Time limit in seconds. Optional; None takes 10.
        Raises: See `Recommender.recommend`.
        """
        wanted = _with_fields(options, {"n": n, "filter": filter, "payload": payload})
        audience = c.Audience(
            user_id=user_id, session_id=session_id, item_ids=item_ids, surface=surface
        )
        send = partial(self.retrieval.recommend, audience)
        return await self._read(send, wanted, collection, timeout_s)

    get = _of(RetrievalClient, RetrievalClient.get_items)
    suggest = _of(RetrievalClient, RetrievalClient.suggest)
    count = _of(RetrievalClient, RetrievalClient.count_items)

    async def items(
        self,
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike = ALL_BUT_VECTOR,
        *,
        min_watermark: bytes = b"",
        collection: str | None = None,
    ) -> AsyncGenerator[c.Item, None]:
        """Yields all items, or those that match, in id order, from one snapshot."""
        name = self._name(collection)
        page = partial(
            self.retrieval.list_items,
            page_size=c.MAX_PAGE,
            filter=filter,
            payload=frozenset(payload),
            collection=name,
        )

        def read(token: str) -> Awaitable[c.ItemsPage]:
            return self._writes.read(
                name, min_watermark, lambda least: page(page_token=token, min_watermark=least)
            )

        async for item in pages(read):
            yield item

    upsert = _of(RetrievalClient, RetrievalClient.upsert_items)
    upsert_batches = _of(RetrievalClient, RetrievalClient.upsert_batches)
    delete = _of(RetrievalClient, RetrievalClient.delete_items)
    delete_matching = _of(RetrievalClient, RetrievalClient.delete_matching)
    delete_batches = _of(RetrievalClient, RetrievalClient.delete_batches)
    record = _of(RetrievalClient, RetrievalClient.record_interactions)
    import_interactions = _of(RetrievalClient, RetrievalClient.import_interactions)
    set_user = _of(RetrievalClient, RetrievalClient.set_user)
    user = _of(RetrievalClient, RetrievalClient.get_user)
    delete_user = _of(RetrievalClient, RetrievalClient.delete_user)

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
        tally = Tally()
        batches = rows.batches()
        with ProgressLine("rows", shown=progress) as line:
            # In a thread, since columns are converted.
            while batch := await asyncio.to_thread(next, batches, None):
                end = batch.first + len(batch.items)
                try:
                    tally.add(await upsert_batch(self.upsert, batch.items, collection=collection))
                except NearlineError as error:
                    raise error.with_message(
                        f"rows {batch.first}..{end - 1}, counted from 0: {error.message}"
                    ) from error
                line.reach(end, len(rows))
        return tally.reply()

    async def ask(
        self,
        question: c.Question | str,
        *,
        filter: c.FilterLike | None = None,
        session_id: str | None = None,
        backend: str | None = None,
        strictness: c.Strictness | str | None = None,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.Answer:
        """Answers a question from the documents: the whole answer, with its citations.

        Args:
            question: The question; a `Question` for all options.
            filter: Which items may be evidence. Optional.
            session_id: Conversation to continue. Optional.
            backend: Who writes, such as "extractive". Optional; None leaves it to the service.
            strictness: How sure the service must be to answer: "strict", "balanced" or "lenient".
                Optional; None leaves it to the service.
            collection: Optional; None takes that of the client.
            timeout_s: Time limit of the whole answer in seconds. Optional; None takes 60.
        Raises: See `Generator.generate`.
        """
        return await _whole(
            self.ask_stream(
                question,
                filter=filter,
                session_id=session_id,
                backend=backend,
                strictness=strictness,
                collection=collection,
                timeout_s=timeout_s,
            )
        )

    async def ask_stream(
        self,
        question: c.Question | str,
        *,
        filter: c.FilterLike | None = None,
        session_id: str | None = None,
        backend: str | None = None,
        strictness: c.Strictness | str | None = None,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        """Yields the events of an answer while it is written; see `Generator.generate`."""
        given = {
            "filter": filter,
            "session_id": session_id,
            "backend": backend,
            "strictness": strictness,
        }
        wanted, name = _with_fields(cast(c.Question, question), given), self._name(collection)

        async def begin(watermark: bytes) -> _Begun:
            least = dataclasses.replace(wanted, min_watermark=watermark)
            events = self.generation.generate(least, collection=name, timeout_s=timeout_s)
            # Whatever the search raises comes before the first event.
            return events, await anext(events)

        events, first = await self._writes.read(name, wanted.min_watermark, begin)
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()

    verify = _of(GenerationClient, GenerationClient.verify)
    embed = _of(EmbeddingClient, EmbeddingClient.embed)
    rerank = _of(EmbeddingClient, EmbeddingClient.rerank)
    status = _of(AdminClient, AdminClient.serving_status)
    submit = _of(IngestClient, IngestClient.submit)

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

    async def _read(
        self,
        send: Callable[..., Awaitable[_R]],
        wanted: c.SearchOptions | c.RecommendOptions,
        collection: str | None,
        timeout_s: float | None,
    ) -> _R:
        """Reads with options, from a state that includes the own writes."""
        name = self._name(collection)

        def read(watermark: bytes) -> Awaitable[_R]:
            least = dataclasses.replace(wanted, min_watermark=watermark)
            return send(options=least, collection=name, timeout_s=timeout_s)

        return await self._writes.read(name, wanted.min_watermark, read)

    def _service(self, kind: type[_Service]) -> _Service:
        """Returns the client of a service, which is made when it is first needed."""
        found = self._services.get(kind)
        if found is None:
            if self._closed:
                raise InvalidRequest(f"the client of {self._address} is closed; make another one")
            connect = cast(Callable[[], ServiceChannel], self._connect[cast(Any, kind)])
            found = self._services[kind] = connect()
        return cast(_Service, found)

    def _name(self, collection: str | None) -> str:
        return self._collection if collection is None else collection


async def _whole(events: AsyncGenerator[c.AnswerEvent, None]) -> c.Answer:
    """Returns the answer that the events are parts of."""
    texts: list[str] = []
    citations: list[c.Citation] = []
    parts: dict[str, Any] = {"usage": c.Usage(), "done": None, "refusal": None}
    async for event in events:
        match event:
            case c.Delta():
                texts.append(event.text)
            case c.Citation():
                citations.append(event)
            case _:
                parts[type(event).__name__.lower()] = event
    return c.Answer(text="".join(texts), citations=citations, **parts)


def _with_fields(record: _Options, fields: Mapping[str, Any]) -> _Options:
    """Returns options with the fields that are given, those that are not None."""
    given = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(record, **given) if given else record
