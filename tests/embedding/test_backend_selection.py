"""Golden vectors, the cache they lie in, and the choice of a backend."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embedding import backend_selection, reference_texts
from embedding.backend_selection import BackendMeasurement, select_backend
from embedding.model_cache import ModelCache
from embedding.reference_texts import REFERENCE_TEXTS, ReferenceSet
from embedding.settings import EmbeddingSettings
from embedding.tokenizer import TextTokenizer
from nearline.errors import NotReady, SettingsError, StoreError
from tests.embedding.fakes import FakeBackend, expected, word_model


def test_golden_texts_are_cut_into_batches_and_put_back_in_order(tmp_path: Path) -> None:
    model = word_model(tmp_path / "m")
    tokenizer = TextTokenizer(model.folder, model.max_tokens)
    vectors = ReferenceSet(tokenizer, 0, budget=64, pad_multiple=4).embed(FakeBackend(slots=2))
    for text, vector in zip(tokenizer.tokenize(REFERENCE_TEXTS), vectors, strict=True):
        np.testing.assert_array_equal(vector, expected(text.ids))


def test_throughput_counts_the_rounds_after_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = word_model(tmp_path / "m")
    golden = ReferenceSet(TextTokenizer(model.folder, model.max_tokens), 0, 64, 1)
    # Every look at the clock takes a second: two rounds are begun before the third passes.
    clock = itertools.count()
    monkeypatch.setattr(reference_texts, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    backend = FakeBackend()
    rate = reference_texts.measure_throughput(backend, golden, seconds=3.0)
    assert rate == golden.tokens * 2 / 4
    assert len(backend.batches) == 3 * len(golden.batches)
    assert golden.tokens == sum(int(batch.mask.sum()) for batch in golden.batches)


def test_the_lowest_cosine_is_given_and_a_low_one_refused_by_number() -> None:
    reference = np.eye(3, dtype=np.float32)
    vectors = reference.copy()
    vectors[2] = [0, 0.02, 1]
    lowest = reference_texts.check_vectors("x", vectors, reference)
    assert lowest == pytest.approx(1 / np.sqrt(1.0004), abs=1e-6)
    vectors[1] = [0.5, 1, 0]
    with pytest.raises(NotReady, match=r"x cannot serve: golden text 1 has cosine 0\.894"):
        reference_texts.check_vectors("x", vectors, reference)


def test_vectors_that_are_not_numbers_are_refused() -> None:
    reference = np.eye(2, dtype=np.float32)
    with pytest.raises(NotReady, match="cosine -1"):
        reference_texts.check_vectors("x", np.full((2, 2), np.nan, np.float32), reference)


def test_a_cache_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ModelCache(tmp_path / "file", word_model(tmp_path / "m"))
    with pytest.raises(StoreError, match="NEARLINE_CACHE_DIR"):
        cache.write(cache.reference_file, b"")


class FakeEngines(backend_selection._BackendSelection):
    """Candidates of known speed and fitness, without engines."""

    speeds = {"slow-f32": 10.0, "fast-bf16": 30.0, "wrong-i8": 90.0}  # noqa: RUF012
    measured = 0

    def is_prepared(self, name: str) -> bool:
        return True

    def load(self, name: str) -> FakeBackend:
        return FakeBackend()

    def check(self, backend: object) -> float:
        return 0.9995

    def _measure(self, name: str) -> BackendMeasurement:
        type(self).measured += 1
        if name.startswith("wrong"):
            raise NotReady("golden text 3 has cosine 0.9")
        return BackendMeasurement(backend=name, min_cosine=0.9995, tokens_per_s=self.speeds[name])


async def test_the_fastest_that_agrees_is_chosen_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_selection, "_BackendSelection", FakeEngines)
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: list(FakeEngines.speeds))
    model = word_model(tmp_path / "m")
    for _ in range(2):
        chosen = await select_backend(model, EmbeddingSettings(), tmp_path)
        assert chosen.figures.backend == "fast-bf16"
        assert FakeEngines.measured == 3
    (file,) = (tmp_path / "embedding" / model.fingerprint).glob("choice-*.json")
    kept = json.loads(file.read_text("utf-8"))
    assert [figures["backend"] for figures in kept["measured"]] == ["slow-f32", "fast-bf16"]
    await select_backend(model, EmbeddingSettings(token_budget=1024), tmp_path)
    assert FakeEngines.measured == 6


async def test_a_choice_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_selection, "_BackendSelection", FakeEngines)
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: ["slow-f32"])
    (tmp_path / "file").write_text("not a folder")
    chosen = await select_backend(
        word_model(tmp_path / "m"), EmbeddingSettings(), tmp_path / "file"
    )
    assert chosen.figures.backend == "slow-f32"


def test_damaged_golden_vectors_are_an_error_with_the_remedy(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, word_model(tmp_path / "m"))
    assert cache.reference() is None
    cache.write(cache.reference_file, b"\x93NUMPY but no more")
    with pytest.raises(NotReady, match=r"is damaged .*delete it"):
        cache.reference()


def test_a_damaged_graph_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from embedding.openvino_backend import OpenVINOBackend

    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(NotReady, match=r"cannot be loaded .*delete its folder"):
        OpenVINOBackend(tmp_path / "model.xml", "f32")


async def test_a_model_not_in_the_cache_needs_torch_and_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "torch" else real(n))
    with pytest.raises(SettingsError, match=r"not installed; run pip install 'nearline\[torch\]'"):
        await select_backend(word_model(tmp_path / "m"), EmbeddingSettings(), tmp_path / "cache")


def test_a_combination_that_cannot_be_had_is_an_error() -> None:
    chosen = EmbeddingSettings(backend="openvino", precision="f16")
    with pytest.raises(SettingsError, match="backend openvino with precision f16"):
        backend_selection._candidates(chosen)
