"""The clients of all services of one address, made when they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar, cast

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients.admin import AdminClient
from nearline.clients.arguments import converts_arguments
from nearline.clients.embedding import EmbeddingClient
from nearline.clients.generation import GenerationClient
from nearline.clients.ingest import IngestClient
from nearline.clients.own_writes import OwnWrites
from nearline.clients.retrieval import RetrievalClient
from nearline.errors import InvalidRequest
from nearline.tls import TlsFiles

_Service = TypeVar("_Service", bound=ServiceChannel)
_Record = TypeVar("_Record", c.SearchOptions, c.RecommendOptions, c.Question)


@converts_arguments
class ServiceClients:
    """Base of `AsyncClient`: its connections, its collection and its own writes.

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

    async def close(self) -> None:
        """Closes all connections; calls in flight are cancelled."""
        self._closed = True
        for service in self._services.values():
            await service.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

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


def with_fields(record: _Record, fields: Mapping[str, Any]) -> _Record:
    """Returns options with the fields that are given, those that are not None."""
    given = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(record, **given) if given else record
