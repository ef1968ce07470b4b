"""Tests what a conversion writes and prints; the vectors are those of a fake for torch."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embedding import convert as converter
from embedding.convert import convert
from embedding.model import EmbeddingModel, read_model
from embedding.model_cache import ModelCache
from embedding.reference_texts import REFERENCE_TEXTS, measure_throughput
from embedding.tokenizer import TextTokenizer
from nearline.errors import SettingsError
from tests.embedding.fakes import FakeBackend, expected, write_model

TORCH = "embedding.torch_backend"


@pytest.fixture
def model(tmp_path: Path) -> EmbeddingModel:
    return read_model(write_model(tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, model: EmbeddingModel) -> ModelCache:
    """A cache that lacks only the reference vectors."""
    cache = ModelCache(tmp_path / "cache", model)
    cache.graph.parent.mkdir(parents=True)
    cache.graph.touch()
    return cache


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    backend = FakeBackend()
    monkeypatch.setitem(sys.modules, TORCH, SimpleNamespace(TorchBackend=lambda model: backend))
    short = functools.partial(measure_throughput, seconds=0.001)
    monkeypatch.setattr(converter, "measure_throughput", short)
    return backend


def test_reference_vectors_are_written_once(
    model: EmbeddingModel, cache: ModelCache, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert(model, cache) == {}
    texts = TextTokenizer(model.folder, model.max_tokens).tokenize(REFERENCE_TEXTS)
    reference = cache.reference()
    assert reference is not None
    np.testing.assert_array_equal(reference, np.stack([expected(text.ids) for text in texts]))
    written = sorted(file.name for file in cache.folder.iterdir())
    # With everything in the cache, torch is no longer needed.
    monkeypatch.setitem(sys.modules, TORCH, None)
    assert convert(model, cache) == {}
    assert sorted(file.name for file in cache.folder.iterdir()) == written


def test_a_measurement_keeps_the_stored_reference(
    model: EmbeddingModel, cache: ModelCache, backend: FakeBackend
) -> None:
    for _ in range(2):
        backend.batches.clear()
        figures = convert(model, cache, measure_budget=64)
        assert figures["min_cosine"] == pytest.approx(1.0)
        assert figures["tokens_per_s"] > 0.0
        assert max(len(batch) * max(map(len, batch)) for batch in backend.batches) == 64
    reference = cache.reference()
    assert reference is not None
    turned = reference + np.array([0.0, 0.0, 0.0, 0.01], np.float32)
    np.save(cache.reference_file, turned)
    assert 0.999 < convert(model, cache, measure_budget=64)["min_cosine"] < 0.999999
    np.testing.assert_array_equal(cache.reference(), turned)


@pytest.mark.parametrize("missing", ["reference", "graph"])
def test_another_architecture_is_not_converted_without_torch_and_the_error_has_the_remedy(
    model: EmbeddingModel, cache: ModelCache, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "graph":
        pytest.importorskip("openvino")
        np.save(cache.reference_file, np.ones((len(REFERENCE_TEXTS), 4), np.float32))
        cache.graph.unlink()
        cache.graph.parent.rmdir()
    monkeypatch.setitem(sys.modules, TORCH, None)
    with pytest.raises(
        SettingsError, match=r"pip install 'nearline-server\[torch\]', or copy a cache"
    ):
        convert(model, cache)


@pytest.mark.parametrize("flags", [[], ["--measure"]])
async def test_the_command_prints_the_folder_and_figures_if_measured(
    model: EmbeddingModel,
    cache: ModelCache,
    backend: FakeBackend,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nearline.telemetry.configure_logging", lambda level, service: None)
    options = {
        "model": model.folder,
        "cache-dir": cache.folder.parents[1],
        "token-budget": 64,
    }
    await converter.main([f"--{name}={value}" for name, value in options.items()] + flags)
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("folder") == str(cache.folder)
    assert set(printed) == ({"min_cosine", "tokens_per_s"} if flags else set())
    longest = max(len(batch) * max(map(len, batch)) for batch in backend.batches)
    assert longest <= 64 if flags else longest > 64


def test_a_complete_cache_is_measured_without_writing_to_it(
    model: EmbeddingModel, cache: ModelCache, backend: FakeBackend
) -> None:
    # An image brings such a cache, and its files are read-only.
    convert(model, cache)
    (cache.folder / "lock").unlink()
    assert convert(model, cache, measure_budget=64)["tokens_per_s"] > 0.0
    assert not (cache.folder / "lock").exists()
