"""One async client for all services."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, cast

from nearline import contract as c
from nearline.clients.admin import NO_ATTRIBUTES, NO_LANGUAGES, NO_WEIGHTS
from nearline.clients.arguments import converts_arguments
from nearline.clients.client_reads import ClientReads
from nearline.clients.client_writes import ClientWrites
from nearline.clients.collections import AsyncCollections
from nearline.clients.local_services import LocalServices
from nearline.clients.service_clients import with_fields
from nearline.errors import AlreadyExists
from nearline.tls import TlsFiles
from nearline.v1 import admin_pb2

# The first start of a model may convert it, and measure what serves it best.
START_TIMEOUT_S: Final = 300.0
_Begun: TypeAlias = tuple[AsyncGenerator[c.AnswerEvent, None], c.AnswerEvent]


@converts_arguments
class AsyncClient(ClientReads, ClientWrites):
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

    async def close(self) -> None:
        """Closes all connections; calls in flight are cancelled. Ends services of its own."""
        await super().close()
        services, self._local = self._local, None
        if services is not None:
            await asyncio.to_thread(services.close)

    @property
    def collections(self) -> AsyncCollections:
        """The collections of the service: `create`, `list`, `get`, `set_name` and `drop`."""
        return AsyncCollections(self.admin, self._writes)

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
        wanted, name = with_fields(cast(c.Question, question), given), self._name(collection)

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

    async def verify(
        self,
        citations: Sequence[c.Citation],
        *,
        min_watermark: bytes = b"",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.VerifyReply:
        """Checks whether 1..1024 citations still stand."""
        name = self._name(collection)

        async def read(watermark: bytes) -> c.VerifyReply:
            return await self.generation.verify(
                citations, collection=name, min_watermark=watermark, timeout_s=timeout_s
            )

        return await self._writes.read(name, min_watermark, read)

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole | str = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        """Returns vectors of texts: (n, d) float32. role: "document" or "query"."""
        return await self.embedding.embed(texts, role, dimensions=dimensions, timeout_s=timeout_s)

    async def rerank(
        self, query: str, texts: Sequence[str], *, timeout_s: float | None = None
    ) -> Sequence[float]:
        """Returns the scores of texts for a query, in their order; larger is better."""
        return await self.embedding.rerank(query, texts, timeout_s=timeout_s)

    async def status(self) -> admin_pb2.GetServingStatusResponse:
        """Returns the collections and snapshots that are served."""
        return await self.admin.serving_status()


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
