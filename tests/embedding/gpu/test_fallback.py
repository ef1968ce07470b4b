"""The CPU stands in for GPUs that fail under load: no request fails, and replies say why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from embedding.gpu.backend import CpuFallback, GpuBackend
from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings
from nearline import EmbeddingClient
from nearline.contract import Embeddings, ServedBy, Source
from nearline.errors import NotReady
from nearline.serving import running
from tests.embedding.fakes import DIM, FakeBackend, expected, word_model
from tests.embedding.gpu.fake_gpu import FAULTS, SAMPLE, FakeGpus

pytestmark = pytest.mark.service
LIVE = ServedBy()
CALLERS = 8


class CpuBackend(FakeBackend):
    """The CPU: the same vectors under another name."""

    name = "cpu-fake"


@asynccontextmanager
async def serving(
    gpus: FakeGpus, *devices: str, check_every_s: float = 60.0
) -> AsyncIterator[tuple[EmbeddingClient, CpuBackend]]:
    """Serves the word model on fake GPUs, with a CPU of two slots as their substitute."""
    settings = EmbeddingSettings(token_budget=4096)
    cpu = CpuBackend(slots=2)
    pool = gpus.pool(*devices, timeout_s=0.5, check_every_s=check_every_s)
    backend = GpuBackend(pool, "gpu-fake", DIM, 0, cpu)
    service = EmbeddingService(word_model(gpus.folder / "m"), backend, settings)
    await service.start()
    try:
        async with (
            running([registration(lambda: service)]) as address,
            EmbeddingClient(address) as client,
        ):
            yield client, cpu
    finally:
        await service.close()


async def until(ask: Callable[[], Awaitable[bool]]) -> None:
    """Asks until the answer is yes; the timeout of the test is the limit."""
    while not await ask():
        await asyncio.sleep(0)


def _fallbacks() -> float:
    name = "nearline_embedding_cpu_fallback_batches_total"
    return REGISTRY.get_sample_value(name, {"model": "embedder"}) or 0.0


@pytest.mark.parametrize("fault", FAULTS)
async def test_under_load_no_request_fails_and_replies_say_that_the_cpu_answered(
    fault: str, tmp_path: Path
) -> None:
    gpus = FakeGpus(tmp_path)
    ended = asyncio.Event()
    replies: list[Embeddings] = []
    before = _fallbacks()

    async def load(client: EmbeddingClient, caller: int) -> None:
        while not ended.is_set():
            reply = await client.embed([f"w{caller}", f"w{caller} w{caller + 1}"], timeout_s=30)
            # Wrong vectors are served until the next check; the others never.
            if fault != "wrong":
                np.testing.assert_array_equal(
                    reply.vectors,
                    [expected([2, caller + 4, 3]), expected([2, caller + 4, caller + 5, 3])],
                )
            replies.append(reply)

    async def last_source(client: EmbeddingClient) -> ServedBy:
        count = len(replies)
        while len(replies) < count + 2 * CALLERS:
            await asyncio.sleep(0.001)
        return replies[-1].served_by

    async with serving(gpus, "cuda:0", check_every_s=0.05) as (client, _):
        async with asyncio.TaskGroup() as callers:
            for caller in range(CALLERS):
                callers.create_task(load(client, caller))
            assert await last_source(client) == LIVE
            assert (await client.info()).backend == "gpu-fake"
            gpus.inject("cuda:0", fault)
            while (source := await last_source(client)) == LIVE:
                pass
            assert (source.source, source.rung) == (Source.FALLBACK, "cpu")
            assert source.reason.startswith("cuda:0: ")
            assert (await client.info()).backend == "cpu-fake"
            gpus.repair("cuda:0")
            while await last_source(client) != LIVE:
                pass
            assert (await client.info()).backend == "gpu-fake"
            ended.set()
        assert REGISTRY.get_sample_value("nearline_embedding_gpus", {"model": "embedder"}) == 1
    assert _fallbacks() > before


async def test_a_large_batch_is_cut_for_the_cpu_and_uses_all_its_slots(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    gpus.inject("cuda:0", "error")
    texts = [" ".join(["w1"] * (1 + at % 5)) for at in range(400)]
    async with serving(gpus, "cuda:0") as (client, cpu):
        reply = await client.embed(texts, timeout_s=30)
    assert reply.served_by.rung == "cpu"
    want = [expected([2, *[5] * (1 + at % 5), 3]) for at in range(400)]
    np.testing.assert_array_equal(reply.vectors, want)
    sizes = [len(texts) * max(map(len, texts)) for texts in cpu.batches]
    assert max(sizes) <= 512 and len(sizes) >= 4


async def test_with_one_gpu_of_two_replies_stay_live(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    async with serving(gpus, "cuda:0", "cuda:1", check_every_s=0.02) as (client, _):
        gpus.inject("cuda:0", "kill")

        async def one_left() -> bool:
            await client.embed(["w1"], timeout_s=30)
            labels = {"model": "embedder"}
            return REGISTRY.get_sample_value("nearline_embedding_gpus", labels) == 1

        await until(one_left)
        for _ in range(20):
            assert (await client.embed(["w1"], timeout_s=30)).served_by == LIVE
        assert (await client.info()).backend == "gpu-fake"


def test_without_a_substitute_a_batch_fails_with_the_reason(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    gpus.inject("cuda:0", "nan")
    pool = gpus.pool("cuda:0")
    fallback: CpuFallback[np.ndarray[tuple[int], np.dtype[np.int64]]] = CpuFallback(pool, None)
    with pytest.raises(NotReady, match=r"no GPU answers \(cuda:0: its vectors are wrong\)"):
        fallback.run((SAMPLE.ids, SAMPLE.mask), list, 0)
    fallback.close()
