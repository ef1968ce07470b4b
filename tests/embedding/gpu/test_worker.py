"""The worker process with real models: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding import backend_selection
from embedding.backend import TokenBatch, pad
from embedding.backend_selection import select_backend
from embedding.bert_reference import NumpyBackend
from embedding.bert_weights import read_bert
from embedding.devices import CPU
from embedding.gpu.backend import GpuBackend
from embedding.gpu.pool import GpuModel, GpuPool, worker_command
from embedding.gpu.worker import GpuWorker
from embedding.model import EmbeddingModel, read_model
from embedding.pair_scorer import PairScorer
from embedding.reference_texts import cosines
from embedding.settings import EmbeddingSettings
from nearline.contract import Lane
from nearline.workers.process import Message
from tests.embedding.cross_encoders import write_cross_encoder
from tests.embedding.fakes import started, write_bert
from tests.optional_packages import needs

pytestmark = [pytest.mark.service, needs("torch", "torch"), needs("transformers", "torch")]
# Another name of the CPU for torch, but not for us: its worker is one as on a GPU.
DEVICE = "cpu:0"
TEXTS = [[2, 4, 3], [2, *range(10, 60), 3], [2, 7, 8, 9, 3], [2, 99, 3]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    return read_model(write_bert(tmp_path_factory.mktemp("bert") / "model"))


def _batch(texts: Sequence[Sequence[int]] = TEXTS) -> TokenBatch:
    return pad([np.array(text) for text in texts], 0, 8)


def _values(model: EmbeddingModel, precision: str) -> dict[str, object]:
    facts = {**asdict(model), "folder": str(model.folder), "pooling": model.pooling.value}
    return {"model": facts, "precision": precision}


def _reference(model: EmbeddingModel, batch: TokenBatch) -> NDArray[np.float32]:
    weights = read_bert(model)
    assert weights is not None
    return NumpyBackend(weights).embed(batch, 0)


@contextmanager
def _pool(model: EmbeddingModel, precision: str, *devices: str) -> Iterator[GpuPool]:
    batch = _batch()
    gpu = GpuModel(
        command=worker_command(),
        values=_values(model, precision),
        sample=(batch.ids, batch.mask),
        problem=lambda rows: "" if cosines(rows, _reference(model, batch)).min() > 0.99 else "far",
    )
    with closing(GpuPool(gpu, devices, timeout_s=60)) as pool:
        assert pool.wait_ready() == ""
        yield pool


def test_a_worker_returns_the_vectors_of_the_reference_to_two_threads_at_once(
    model: EmbeddingModel,
) -> None:
    batches = [_batch(TEXTS[::-1]), _batch(TEXTS[1:3] * 20)]
    known = [_reference(model, batch) for batch in batches]
    with _pool(model, "f32", DEVICE) as pool:

        def run(slot: int) -> None:
            batch = batches[slot]
            for _ in range(20):
                rows = pool.run((batch.ids, batch.mask), slot)
                assert rows is not None and rows.dtype == np.float32
                np.testing.assert_allclose(rows, known[slot], atol=1e-5)

        with ThreadPoolExecutor(pool.slots) as threads:
            list(threads.map(run, range(pool.slots)))


def test_a_batch_without_memory_is_run_in_halves_by_the_worker(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding.torch_backend import TorchBackend

    class OutOfMemoryError(RuntimeError):
        pass

    whole = TorchBackend.embed
    sizes: list[int] = []

    def embed(self: TorchBackend, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        sizes.append(len(batch.ids))
        if len(batch.ids) > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return whole(self, batch, slot)

    monkeypatch.setattr(TorchBackend, "embed", embed)
    worker, batch = GpuWorker(), _batch()
    worker.load(Message({**_values(model, "f32"), "device": CPU}))
    (rows,) = worker.run(Message({}, [batch.ids, batch.mask])).arrays
    assert sizes == [4, 2, 2]
    np.testing.assert_allclose(rows, _reference(model, batch), atol=1e-5)


@pytest.mark.long
async def test_a_model_is_measured_checked_and_served_by_workers(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda settings: ["torch-f32"])
    settings = EmbeddingSettings(token_budget=1024)
    settings.__dict__["devices"] = (DEVICE,)
    selected = await select_backend(model, settings, tmp_path)
    assert isinstance(selected.backend, GpuBackend)
    with closing(selected.backend.fallback):
        assert selected.backend.name == selected.figures.backend == "torch-f32"
        assert selected.figures.min_cosine >= 0.999
        assert selected.figures.tokens_per_s > 0
        assert selected.backend.fallback.away == ""


@pytest.mark.long
@needs("sentence_transformers", "torch")
async def test_pairs_are_scored_by_workers_as_by_the_cpu(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "reranker")
    settings = EmbeddingSettings(reranker=str(folder), token_budget=1024)
    texts = ["w1 w2", "café 東京 🙂 w7", " ".join(f"w{n}" for n in range(90))]
    rows = []
    for devices in ((CPU,), (DEVICE,)):
        chosen = settings.model_copy()
        chosen.__dict__["devices"] = devices
        async with started(PairScorer.load("reranker", chosen)) as scorer:
            scored = await scorer.score(["w1 w3"] * 3, texts, Lane.INTERACTIVE, 60.0)
            assert scored.fallback_reason == ""
            rows.append(scored.rows)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
