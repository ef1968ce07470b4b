"""Cross-encoders with real, random weights: held against plain CrossEncoder.predict, and served."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from embedding import __main__ as program
from embedding.pair_model import find_pair_model
from embedding.pair_scorer import PairScorer
from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings
from nearline import EmbeddingClient, Lane
from nearline.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    SettingsError,
    Unsupported,
)
from nearline.serving import Registration, running
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from tests.embedding.cross_encoders import NLI_LABELS, FakeEngine, pair_model, write_cross_encoder
from tests.embedding.fakes import FakeBackend, word_model
from tests.optional_packages import needs

pytestmark = [pytest.mark.service, needs("sentence_transformers", "torch")]
ROOT = Path(__file__).parents[2]
QUERY = "w1 w2 w3"
TEXTS = [
    "w1",
    "w2 w3 w4 w5",
    "café 東京 🙂 w7",
    "unknown words only",
    " ".join(f"w{number}" for number in range(90)),
    "w9\tw8\n\nw7",
    "e\u0301 ☃ \x00 \u202e w5",
    "w1" * 3_000,
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reranker and an entailment model."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "reranker": write_cross_encoder(folder / "reranker"),
        "entailment": write_cross_encoder(folder / "entailment", NLI_LABELS, seed=2),
    }


def predicted(
    folder: Path, pairs: Sequence[tuple[str, str]], *, softmax: bool = False
) -> NDArray[np.float32]:
    """Returns the scores of plain sentence-transformers, for each pair alone."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    rows = [encoder.predict([pair], apply_softmax=softmax)[0] for pair in pairs]
    return np.stack(rows)


@asynccontextmanager
async def served(settings: EmbeddingSettings, folder: Path) -> AsyncIterator[EmbeddingClient]:
    """The real models of pairs beside a fake embedder, over gRPC."""
    service = EmbeddingService(
        word_model(folder / "m"),
        FakeBackend(),
        settings,
        reranker=PairScorer.load("reranker", settings),
        entailment=PairScorer.load("entailment", settings),
    )
    async with running_service(service) as client:
        yield client


@asynccontextmanager
async def running_service(service: EmbeddingService) -> AsyncIterator[EmbeddingClient]:
    await service.start()
    try:
        async with (
            running([registration(lambda: service)]) as address,
            EmbeddingClient(address) as client,
        ):
            yield client
    finally:
        await service.close()


def both(folders: dict[str, Path], **limits: int) -> EmbeddingSettings:
    names = {setting: str(folder) for setting, folder in folders.items()}
    return EmbeddingSettings.load({**names, "token_budget": 96, **limits})


async def test_scores_are_what_cross_encoder_predict_gives(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    async with served(both(folders), tmp_path) as client:
        scores = await client.rerank(QUERY, TEXTS, lane=Lane.BULK, timeout_s=60)
        alone = [(await client.rerank(QUERY, [text]))[0] for text in TEXTS]
    expected = predicted(folders["reranker"], [(QUERY, text) for text in TEXTS])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    # Random weights, yet they tell the texts apart: a constant would pass for anything.
    assert np.ptp(expected) > 0.05


async def test_entailment_is_the_softmax_column_of_that_label(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    hypotheses = TEXTS[::-1]
    async with served(both(folders), tmp_path) as client:
        judged = await client.entail(TEXTS, hypotheses, timeout_s=60)
        info = await client.info()
    rows = predicted(folders["entailment"], list(zip(TEXTS, hypotheses, strict=True)), softmax=True)
    np.testing.assert_allclose(judged.contradiction, rows[:, 0], atol=1e-5)
    np.testing.assert_allclose(judged.entailment, rows[:, 1], atol=1e-5)
    assert np.ptp(rows[:, 0]) > 0.05 and np.ptp(rows[:, 1]) > 0.05
    wanted = {s: find_pair_model(str(f), s).fingerprint for s, f in folders.items()}
    assert judged.fingerprint == info.entailment_fingerprint == wanted["entailment"]
    assert info.reranker_fingerprint == wanted["reranker"] != wanted["entailment"]
    assert info.reranker == str(folders["reranker"])


async def test_an_activation_saved_with_the_model_does_not_reach_entailment(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    plain = predicted(folders["entailment"], [("w1", "w2")], softmax=True)
    copy = shutil.copytree(folders["entailment"], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    async with served(EmbeddingSettings(entailment=str(copy)), tmp_path) as client:
        judged = await client.entail(["w1"], ["w2"])
        with pytest.raises(Unsupported, match="NEARLINE_EMBEDDING_RERANKER"):
            await client.rerank("w1", ["w2"])
    np.testing.assert_allclose(judged.entailment, plain[:, 1], atol=1e-5)


async def test_bad_requests_arrive_as_the_same_class(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    async with served(both(folders, max_texts=50), tmp_path) as client:
        with pytest.raises(InvalidRequest, match="empty") as caught:
            await client.rerank("w1", ["w2", ""])
        assert caught.value.field == "texts[1]"
        with pytest.raises(InvalidRequest, match=r"51 texts; send 1\.\.50"):
            await client.entail(["w1"] * 51, ["w1"] * 51)
        with pytest.raises(InvalidRequest, match="1 premises and 2 hypotheses"):
            await client.entail(["w1"], ["w1", "w2"])
        # Python text that no message can carry.
        with pytest.raises(InvalidRequest, match="lone surrogate at position 2"):
            await client.rerank("w1\ud800", ["w2"])
        with pytest.raises(InvalidRequest, match="lone surrogate"):
            await client.embed(["\ud800"])


async def test_overload_deadline_and_leaving_over_grpc(tmp_path: Path) -> None:
    engine = FakeEngine()
    # "a b" with three special tokens is five.
    settings = EmbeddingSettings(max_queued_tokens=5)
    scorer = PairScorer(pair_model(), engine, max_tokens=64, setting="reranker", settings=settings)
    service = EmbeddingService(word_model(tmp_path / "m"), FakeBackend(), settings, reranker=scorer)
    async with running_service(service) as client:
        engine.hold()
        first = asyncio.create_task(client.rerank("a", ["held"]))
        assert await asyncio.to_thread(engine.entered.acquire, timeout=20)
        calls = [asyncio.create_task(client.rerank("a", ["gone"])) for _ in range(2)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        refused = done.pop().exception()
        gone = waiting.pop()
        gone.cancel()
        await asyncio.wait([gone])
        # Answered by the server's loop after it has seen the cancellation.
        await client.info()
        with pytest.raises(DeadlineExceeded):
            await client.rerank("a", ["late"], timeout_s=0.2)
        await client.info()
        engine.release()
        assert list(await first) == [4]
        assert list(await client.rerank("a", ["stays"])) == [5]
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_s is not None and refused.retry_after_s > 0
    assert engine.batches == [["held"], ["stays"]]


@pytest.mark.parametrize(
    ("setting", "labels", "words"),
    [
        ("reranker", NLI_LABELS, "3 labels .*1 is needed"),
        ("entailment", ("score",), "id2label"),
    ],
)
def test_a_model_with_other_labels_is_an_error(
    tmp_path: Path, setting: str, labels: Sequence[str], words: str
) -> None:
    folder = write_cross_encoder(tmp_path / "m", labels)
    with pytest.raises(SettingsError, match=words):
        PairScorer.load(setting, EmbeddingSettings.load({setting: str(folder)}))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_folder_is_an_error_with_a_remedy(
    tmp_path: Path, folders: dict[str, Path], name: str
) -> None:
    copy = shutil.copytree(folders["reranker"], tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    with pytest.raises(SettingsError, match=r"download|save the model again"):
        PairScorer.load("reranker", EmbeddingSettings(reranker=str(copy)))


def test_weights_that_give_no_number_are_an_error(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = write_cross_encoder(tmp_path / "m")
    file = folder / "model.safetensors"
    tensors = {name: np.full_like(tensor, np.nan) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=r"not a finite number.*download the model again"):
        PairScorer.load("reranker", EmbeddingSettings(reranker=str(folder)))


def test_a_device_that_is_not_there_is_an_error(folders: dict[str, Path]) -> None:
    chosen = EmbeddingSettings(reranker=str(folders["reranker"]), device="cuda:99")
    with pytest.raises(SettingsError, match="device 'cuda:99'"):
        PairScorer.load("reranker", chosen)


def test_without_torch_the_error_says_what_to_install(folders: dict[str, Path]) -> None:
    # None in sys.modules stands for a library that is not installed.
    script = (
        "import sys; sys.modules['torch'] = sys.modules['sentence_transformers'] = None;"
        "from embedding.pair_scorer import PairScorer;"
        "from embedding.settings import EmbeddingSettings;"
        "PairScorer.load('reranker', EmbeddingSettings(reranker=sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(folders["reranker"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SettingsError" in done.stderr and "pip install 'nearline-server[torch]'" in done.stderr


def test_a_process_with_a_bad_folder_ends_before_it_serves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedding", "--reranker", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "config.json is missing" in done.stderr and '"serving"' not in done.stderr


# The embedder's own first start on a machine converts and measures.
@pytest.mark.timeout(300)
async def test_the_program_serves_all_three(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    """Without a process of its own, which would load torch once more."""
    served: list[str] = []

    async def serve(
        settings: EmbeddingSettings,
        registrations: Sequence[Registration],
        *,
        ready: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        async with running(registrations, ready=ready) as address:
            served.append(address)
            await _ask_for_all_three(address, folders)
        await close()

    monkeypatch.setattr("nearline.serving.serve", serve)
    monkeypatch.setattr("nearline.telemetry.configure_logging", lambda level, service: None)
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)
    await program.main([f"--{setting}={folder}" for setting, folder in folders.items()])
    assert len(served) == 1


async def _ask_for_all_three(address: str, folders: dict[str, Path]) -> None:
    async with (
        EmbeddingClient(address) as client,
        grpc.aio.insecure_channel(address) as channel,
    ):
        assert (await client.embed(["a kettle"])).vectors.shape == (1, 384)
        scores = await client.rerank(QUERY, TEXTS)
        judged = await client.entail(TEXTS[:1], TEXTS[1:2])
        info = await client.info()
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        reply = await stub.Rerank(embedding_pb2.RerankRequest(query=QUERY, texts=TEXTS))
    expected = predicted(folders["reranker"], [(QUERY, text) for text in TEXTS])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert list(reply.scores) == pytest.approx(list(scores), abs=1e-5)
    assert reply.fingerprint == info.reranker_fingerprint != ""
    assert 0.0 <= judged.entailment[0] + judged.contradiction[0] <= 1.0 + 1e-6
