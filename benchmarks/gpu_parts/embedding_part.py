"""Embedding on the GPU over gRPC, compared with the same service on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_parts.callers import Callers, Load
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.random_data import random_texts
from benchmarks.gpu_parts.session import Session
from embedding.reference_texts import cosines
from nearline.clients import EmbeddingClient
from nearline.errors import NotReady
from nearline.v1 import embedding_pb2
from nearline.vectors import unpack
from nearline_cli.local.processes import EMBEDDING_SERVICES, service_process
from nearline_cli.sizing.encoder import flop_per_token

_METHOD = "/nearline.v1.EmbeddingService/Embed"
_TOKENS, _QUERY_TOKENS = 200, 20
# MiniLM-L6.
_LAYERS, _WIDTH = 6, 384
_READY_S = 300.0
# Of the CPU's load: its queue holds fewer tokens.
_CPU_TEXTS, _CPU_IN_FLIGHT = 64, 2
_QUERIES_IN_FLIGHT = 32
_Lane = embedding_pb2.Lane


class _CpuResult(NamedTuple):
    """Rate of the CPU's service, and its vectors of the first texts: (n, 384) float32."""

    texts_per_s: float
    vectors: NDArray[np.float32]


async def measure_embedding(session: Session) -> list[Figure]:
    """Measures texts of 200 tokens, and queries of 20 tokens at half of their peak."""
    sizes = session.sizes
    texts = random_texts(sizes.texts, _TOKENS, session.seed)
    queries = random_texts(sizes.texts, _QUERY_TOKENS, session.seed)
    single = _requests(queries, 1, _Lane.LANE_INTERACTIVE)
    precision = ["--precision", "f32"] if session.rehearsal else []
    async with Callers(sizes.processes) as callers:
        cpu = await _on_cpu(session, callers, texts)
        async with session.service("embedding", precision, EMBEDDING_SERVICES) as service:
            async with EmbeddingClient(service.address) as client:
                engine = (await client.info()).backend
            bulk = _requests(texts, sizes.batch, _Lane.LANE_BULK)
            address, addresses = service.address, [service.address]
            await callers.closed_loop(addresses, _METHOD, bulk, sizes.in_flight, 1.0)
            load = await callers.closed_loop(
                addresses, _METHOD, bulk, sizes.in_flight, sizes.seconds
            )
            peak = await callers.closed_loop(
                addresses, _METHOD, single, _QUERIES_IN_FLIGHT, sizes.seconds / 2
            )
            half = peak.per_s / 2
            count = max(sizes.processes, round(half * sizes.seconds))
            repeated = [single[number % len(single)] for number in range(count)]
            calm = await callers.open_loop(address, _METHOD, repeated, half)
    vectors = _vectors(load, len(cpu.vectors))
    _vectors(calm, sizes.processes)
    texts_per_s = load.per_s * sizes.batch
    limit = session.card.flops / (_TOKENS * flop_per_token(_LAYERS, _WIDTH, _TOKENS))
    return [
        Figure(
            name="texts of 200 tokens over gRPC",
            value=texts_per_s,
            unit="texts/s",
            bar=15_000,
            limit=limit,
            limited_by="FLOP",
            note=f"{engine}, requests of {sizes.batch}, p99 {load.percentile_ms(99):.0f} ms",
        ),
        Figure(name="the CPU service", value=cpu.texts_per_s, unit="texts/s"),
        Figure(
            name="times the CPU service", value=texts_per_s / max(cpu.texts_per_s, 1e-9), bar=30
        ),
        Figure(
            name="lowest cosine to the CPU service",
            value=float(cosines(vectors, cpu.vectors[: len(vectors)]).min()),
            bar=0.999,
        ),
        Figure(name="queries of 20 tokens, peak", value=peak.per_s, unit="queries/s"),
        Figure(
            name="queries of 20 tokens, p99 at half of the peak",
            value=calm.percentile_ms(99),
            unit="ms",
            bar=10,
            at_most=True,
            note=f"open loop, {half:,.0f} queries/s, p50 {calm.percentile_ms(50):.1f} ms",
        ),
    ]


async def _on_cpu(session: Session, callers: Callers, texts: Sequence[str]) -> _CpuResult:
    sample = _requests(texts[: session.sizes.batch], _CPU_TEXTS, _Lane.LANE_BULK)
    arguments = ["--device", "cpu"]
    async with (
        service_process(
            "embedding", arguments, ready_services=EMBEDDING_SERVICES, ready_timeout_s=_READY_S
        ) as service,
        EmbeddingClient(service.address) as client,
    ):
        vectors = (await client.embed(texts[: session.sizes.batch], timeout_s=60.0)).vectors
        # Every process needs a request of its own.
        requests = [*sample] * session.sizes.processes
        load = await callers.closed_loop(
            [service.address], _METHOD, requests, _CPU_IN_FLIGHT, session.sizes.seconds
        )
    texts_each = min(_CPU_TEXTS, session.sizes.batch)
    return _CpuResult(load.per_s * texts_each, vectors)


def _requests(texts: Sequence[str], size: int, lane: embedding_pb2.Lane) -> list[bytes]:
    return [
        embedding_pb2.EmbedRequest(
            texts=texts[at : at + size], role=embedding_pb2.TEXT_ROLE_DOCUMENT, lane=lane
        ).SerializeToString()
        for at in range(0, len(texts), size)
    ]


def _vectors(load: Load, count: int) -> NDArray[np.float32]:
    """Returns the vectors of the first texts. Raises NotReady: the CPU answered."""
    replies = [
        embedding_pb2.EmbedResponse.FromString(load.replies[number])
        for number in sorted(load.replies)
    ]
    for reply in replies:
        if reply.served_by.reason:
            raise NotReady(
                f"the CPU answered in place of the GPU: {reply.served_by.reason}; see nearline "
                "doctor"
            )
    return np.concatenate([unpack(reply.vectors) for reply in replies[:1]])[:count]
