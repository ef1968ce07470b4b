"""The embedding service on the GPUs of this machine: `pytest -m gpu`; skipped without one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from embedding.devices import free_bytes
from embedding.gpu.backend import GpuBackend
from embedding.reference_texts import REFERENCE_TEXTS, cosines
from embedding.service import EmbeddingService, open_service
from embedding.settings import EmbeddingSettings, cache_folder
from nearline.contract import CPU_RUNG, ServedBy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not free_bytes(), reason="torch finds no GPU: see docs/guides/gpu.md"),
]
LAST = f"cuda:{len(free_bytes()) - 1}"


@asynccontextmanager
async def serving(device: str, precision: str = "auto") -> AsyncIterator[EmbeddingService]:
    """Serves the default model."""
    settings = EmbeddingSettings.model_validate({"device": device, "precision": precision})
    async with open_service(settings, cache_folder(settings, os.environ)) as service:
        yield service


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("device", ["cuda:0", LAST, "cuda:all"])
async def test_vectors_of_a_gpu_are_those_of_the_cpu(device: str, precision: str) -> None:
    async with serving("cpu") as cpu, serving(device, precision) as gpu:
        info = await gpu.info()
        assert (info.backend, info.fingerprint) == (
            f"torch-{precision}",
            (await cpu.info()).fingerprint,
        )
        assert info.min_cosine >= 0.999
        texts = [f"{text} {number}" for number in range(8) for text in REFERENCE_TEXTS]
        known, found = await asyncio.gather(cpu.embed(texts), gpu.embed(texts))
    assert found.served_by == ServedBy()
    assert cosines(found.vectors, known.vectors).min() >= 0.999


async def test_the_cpu_stands_in_for_a_gpu_whose_process_is_killed() -> None:
    async with serving("cuda:0") as service:
        assert isinstance(service._backend, GpuBackend)
        (worker,) = service._backend.fallback._pool._workers.values()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        reply = await service.embed(REFERENCE_TEXTS)
        assert reply.served_by.rung == CPU_RUNG
        assert "SIGKILL" in reply.served_by.reason
        while (await service.embed(["back?"])).served_by != ServedBy():
            await asyncio.sleep(0)
        assert (await service.info()).backend.startswith("torch-")


async def test_a_batch_without_memory_is_run_in_halves() -> None:
    import torch

    async with serving("cuda:0") as service:
        free, _ = torch.cuda.mem_get_info(0)
        hog = torch.empty(max(0, free - (300 << 20)), dtype=torch.uint8, device="cuda:0")
        reply = await service.embed([f"{n} " + "long text " * 300 for n in range(1024)])
        del hog
    assert len(reply.vectors) == 1024
