"""A gateway in front of services that answer what a test wants, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2

from gateway import http_server
from gateway.application import make_application
from gateway.settings import GatewaySettings
from gateway.upstream import SERVICES, Upstream
from nearline import serving
from nearline.settings import ServerSettings
from nearline.v1 import (
    admin_pb2_grpc,
    embedding_pb2_grpc,
    generation_pb2_grpc,
    ingest_pb2_grpc,
    retrieval_pb2_grpc,
)

MODULES = (
    retrieval_pb2_grpc,
    generation_pb2_grpc,
    admin_pb2_grpc,
    ingest_pb2_grpc,
    embedding_pb2_grpc,
)


@dataclass
class Behind:
    """The services behind a gateway.

    answers: By method, returns the reply (a list of replies, for a stream), or raises. seen: The
    requests that arrived, by method, the last one last. metadata: Of the last call.
    """

    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    left_s: float | None = None
    cancelled: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def request(self) -> Any:
        """The last request."""
        return self.seen[-1][1]


def _servicer(behind: Behind, module: Any, service: str) -> Any:
    base = getattr(module, f"{service}Servicer")
    methods: dict[str, Any] = {}
    for name, method in SERVICES[service].methods_by_name.items():
        methods[name] = _method(behind, name, method.client_streaming, method.server_streaming)
    return type(service, (base,), methods)()


def _method(behind: Behind, name: str, streams_in: bool, streams_out: bool) -> Any:
    async def note(request: Any, context: Any) -> Any:
        behind.metadata = dict(context.invocation_metadata() or ())
        behind.left_s = context.time_remaining()
        if streams_in:
            async for one in request:
                behind.seen.append((name, one))
        else:
            behind.seen.append((name, request))
        try:
            await behind.go.wait()
        except asyncio.CancelledError:
            behind.cancelled.append(name)
            raise
        return behind.answers[name](behind.request)

    async def one(self: Any, request: Any, context: Any) -> Any:
        return await note(request, context)

    async def many(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        for reply in await note(request, context):
            if isinstance(reply, Exception):
                raise reply
            yield reply

    return many if streams_out else one


@contextlib.asynccontextmanager
async def services_of(behind: Behind, settings: ServerSettings | None = None) -> AsyncIterator[str]:
    """Runs all services on one address, which it gives."""
    behind.go.set()
    registrations = []
    for module, service in zip(
        MODULES,
        (
            "RetrievalService",
            "GenerationService",
            "AdminService",
            "IngestService",
            "EmbeddingService",
        ),
        strict=True,
    ):
        add = getattr(module, f"add_{service}Servicer_to_server")
        registrations.append(
            serving.Registration(
                f"nearline.v1.{service}", partial(add, _servicer(behind, module, service))
            )
        )
    async with serving.running(registrations, settings=settings) as address:
        yield address


@contextlib.asynccontextmanager
async def gateway(
    services: ServerSettings | None = None, **settings: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, Behind]]:
    """Runs a gateway and the services behind it; gives a client, and the services.

    services: Settings of the services. settings: Those of the gateway.
    """
    behind = Behind()
    async with services_of(behind, services) as address:
        chosen = GatewaySettings.load(
            {
                "port": 0,
                "retrieval": address,
                "generation": address,
                "ingest": address,
                "embedding": address,
                **settings,
            }
        )
        async with (
            http_server.serving(make_application(chosen, Upstream.of(chosen)), chosen) as own,
            httpx2.AsyncClient(
                base_url=f"http://{own}",
                headers={"content-type": "application/json"},
                timeout=20,
                trust_env=False,
            ) as client,
        ):
            yield client, behind
