"""A gateway over a router with keys and live changes, and a generation service over it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from embedding.servicer import registration as embedding_registration
from gateway import http_server
from gateway.application import make_application
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from generation.evidence.evidence_reader import EvidenceReader
from generation.service import GenerationService
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline.clients import RetrievalClient
from nearline.serving import running
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.processes import retrieval_process
from tests.generation.conftest import DIM, ITEMS, registration
from tests.redis_server import valkey
from tests.retrieval.fakes import WordEmbedder


@dataclass(frozen=True, slots=True)
class RealServices:
    """Services that run. url: Of MCP. writer, reader: Keys."""

    router: str
    generation: str
    url: str
    writer: str
    reader: str

    @contextlib.asynccontextmanager
    async def client(self, key: str, mode: str = "auto") -> AsyncIterator[Client]:
        """Connects the official client over HTTP."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=20, trust_env=False) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client


@contextlib.asynccontextmanager
async def real_services(folder: Path) -> AsyncIterator[RealServices]:
    """Runs them for the length of the block."""
    embedder = WordEmbedder(DIM)
    keys = KeyStore(folder / "keys.toml")
    writer, _ = keys.create("shop", {EVERY: Right.WRITE})
    reader, _ = keys.create("shop", {EVERY: Right.READ})
    await build_snapshot(ITEMS, BuildOptions(store=str(folder / "store")), embedder)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        embedding = await enter(running([embedding_registration(lambda: embedder)]))  # type: ignore[arg-type,return-value]
        redis = await enter(valkey())
        words = ("--redis", redis, "--keys", str(folder / "keys.toml"), "--drain-s", "0")
        router = await enter(retrieval_process(folder / "store", words, embedding=embedding))
        retriever = await enter(RetrievalClient(router.address, token=reader))
        service = GenerationService(retriever, EvidenceReader(retriever, embedder))
        generation = await enter(running([registration(service)]))
        chosen = GatewaySettings.load(
            {"port": 0, "retrieval": router.address, "generation": generation}
        )
        own = await enter(
            http_server.serving(make_application(chosen, Upstream.of(chosen)), chosen)
        )
        yield RealServices(router.address, generation, f"http://{own}/mcp", writer, reader)
