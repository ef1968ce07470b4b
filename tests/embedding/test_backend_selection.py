"""Golden vectors, the cache they lie in, and the choice of a backend."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from embedding import backend_selection, reference_texts
from embedding.backend_selection import BackendMeasurement, select_backend
from embedding.model_cache import ModelCache
from embedding.reference_texts import REFERENCE_TEXTS, ReferenceSample, ReferenceSet
from embedding.settings import EmbeddingSettings
from embedding.tokenizer import TextTokenizer
from nearline.errors import NearlineError, NotReady, SettingsError, StoreError
from tests.embedding.fakes import FakeBackend, expected, word_model


def test_golden_texts_are_cut_into_batches_and_put_back_in_order(tmp_path: Path) -> None:
    model = word_model(tmp_path / "m")
    tokenizer = TextTokenizer(model.folder, model.max_tokens)
    vectors = ReferenceSet(tokenizer, 0, budget=64, pad_multiple=4).embed(FakeBackend(slots=2))
    for text, vector in zip(tokenizer.tokenize(REFERENCE_TEXTS), vectors, strict=True):
        np.testing.assert_array_equal(vector, expected(text.ids))


def test_the_sample_is_every_sixth_golden_text_and_finds_what_is_wrong(tmp_path: Path) -> None:
    model = word_model(tmp_path / "m")
    tokenizer = TextTokenizer(model.folder, model.max_tokens)
    golden = ReferenceSet(tokenizer, 0, budget=64, pad_multiple=8)
    sample = ReferenceSample(tokenizer, 0, 8, golden.embed(FakeBackend()))
    vectors = FakeBackend().embed(sample.batch, 0)
    assert len(vectors) == -(-len(REFERENCE_TEXTS) // 6)
    assert sample.problem(vectors) == ""
    vectors[2] = np.nan
    assert sample.problem(vectors).startswith("golden text 12 has cosine -1.000000")


def test_batches_are_filled_and_copied_to_measure_a_gpu(tmp_path: Path) -> None:
    model = word_model(tmp_path / "m")
    golden = ReferenceSet(TextTokenizer(model.folder, model.max_tokens), 0, 64, 8)
    count = len(golden.batches)
    golden.fill(512, copies=3)
    assert len(golden.batches) == 3 * count
    assert all(256 < batch.ids.size <= 512 for batch in golden.batches)
    assert golden.tokens == sum(int(batch.mask.sum()) for batch in golden.batches)


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


async def test_services_that_start_at_the_same_time_measure_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: type[FakeLoads]
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: ["torch-f32"])
    model = word_model(tmp_path / "m")
    entered, leave = asyncio.Event(), asyncio.Event()
    prepare = loads._prepare

    async def held(self: FakeLoads, measure_torch: bool) -> dict[str, float]:
        entered.set()
        await leave.wait()
        return await prepare(self, measure_torch)

    monkeypatch.setattr(loads, "_prepare", held)
    async with asyncio.TaskGroup() as starting:
        first = starting.create_task(select_backend(model, EmbeddingSettings(), tmp_path / "c"))
        await entered.wait()
        later = [
            starting.create_task(select_backend(model, EmbeddingSettings(), tmp_path / "c"))
            for _ in range(2)
        ]
        assert (await asyncio.wait(later, timeout=0.2))[0] == set()
        leave.set()
    assert {one.result().figures.tokens_per_s for one in (first, *later)} == {50.0}
    assert loads.prepared == [False]


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


def test_a_combination_that_cannot_be_had_is_an_error() -> None:
    chosen = EmbeddingSettings(backend="openvino", precision="f16")
    with pytest.raises(SettingsError, match="backend openvino with precision f16"):
        backend_selection._candidates(chosen)


class FakeLoads(backend_selection._BackendSelection):
    """Loads fakes, and says that a conversion measured torch at 77 tokens per second."""

    prepared: ClassVar[list[bool]] = []

    def load(self, name: str) -> FakeBackend:
        backend = FakeBackend()
        backend.name = name
        return backend

    async def _prepare(self, measure_torch: bool) -> dict[str, float]:
        self.prepared.append(measure_torch)
        vectors = self._golden(FakeBackend()).embed(FakeBackend())
        self._cache.graph.parent.mkdir(parents=True, exist_ok=True)
        self._cache.graph.touch()
        np.save(self._cache.reference_file, vectors)
        return {"tokens_per_s": 77.0, "min_cosine": 1.0} if measure_torch else {}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> type[FakeLoads]:
    monkeypatch.setattr(FakeLoads, "prepared", [])
    monkeypatch.setattr(backend_selection, "_BackendSelection", FakeLoads)
    monkeypatch.setattr(backend_selection, "measure_throughput", lambda backend, golden: 50.0)
    return FakeLoads


@pytest.mark.parametrize(
    ("names", "prepared", "chosen"),
    [
        # Torch is measured by the process that converts.
        (["openvino-f32", "torch-f32"], [True], ("torch-f32", 77.0)),
        (["openvino-f32"], [False], ("openvino-f32", 50.0)),
        # It serves in any case, so that it can be measured in this process.
        (["torch-f32"], [False], ("torch-f32", 50.0)),
    ],
)
async def test_torch_is_measured_where_it_does_no_harm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: type[FakeLoads],
    names: list[str],
    prepared: list[bool],
    chosen: tuple[str, float],
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: names)
    settings = EmbeddingSettings()
    model = word_model(tmp_path / "m")
    selected = await select_backend(model, settings, tmp_path / "c")
    assert (selected.figures.backend, selected.figures.tokens_per_s) == chosen
    assert selected.figures.min_cosine == pytest.approx(1.0)
    assert loads.prepared == prepared
    # With everything in the cache, only torch is still measured there.
    settings = EmbeddingSettings(token_budget=96)
    again = await select_backend(model, settings, tmp_path / "c")
    assert (again.figures.backend, again.figures.tokens_per_s) == chosen
    assert loads.prepared == [*prepared, *filter(None, prepared)]


async def test_a_kept_choice_is_measured_again_if_its_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: type[FakeLoads]
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: ["torch-bf16", "torch-f16"])
    model = word_model(tmp_path / "m")
    for _ in range(2):
        await select_backend(model, EmbeddingSettings(), tmp_path)
        assert loads.prepared == [False]
    ModelCache(tmp_path, model).reference_file.unlink()
    await select_backend(model, EmbeddingSettings(), tmp_path)
    assert loads.prepared == [False, False]


async def test_a_prepared_model_is_used_whatever_the_cache_holds_and_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: type[FakeLoads]
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: ["openvino-f32"])
    model = word_model(tmp_path / "m")
    image, volume = tmp_path / "image", tmp_path / "volume"
    await select_backend(model, EmbeddingSettings(), image)
    # The volume of an older image, whose files are of no use to this one.
    older = ModelCache(volume, model)
    older.graph.parent.mkdir(parents=True)
    older.graph.touch()
    older.reference_file.write_bytes(b"older")
    prepared = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    selected = await select_backend(model, EmbeddingSettings(prepared_dir=str(image)), volume)
    assert selected.figures.min_cosine == pytest.approx(1.0)
    assert loads.prepared == [False]  # The image's own conversion, and none after it.
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == prepared
    assert list(older.folder.glob("choice-*"))


@pytest.mark.parametrize("names", [["torch-bf16"], ["torch-f16", "torch-bf16"]])
async def test_if_no_backend_agrees_with_the_reference_the_error_of_the_last_is_raised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: type[FakeLoads],
    names: list[str],
) -> None:
    monkeypatch.setattr(backend_selection, "_candidates", lambda _: names)
    model = word_model(tmp_path / "m")
    cache = ModelCache(tmp_path, model)
    cache.folder.mkdir(parents=True)
    np.save(cache.reference_file, np.ones((len(REFERENCE_TEXTS), 4), np.float32))
    with pytest.raises(NotReady, match="torch-bf16 cannot serve: golden text"):
        await select_backend(model, EmbeddingSettings(), tmp_path)
    assert not list(cache.folder.glob("choice-*"))


CONVERTED = """#!/bin/sh
echo "$@" > "$0.arguments"
echo 'a line of a library'
echo '{"folder": "/cache", "tokens_per_s": 12.5, "min_cosine": 1.0}'
"""


async def test_a_conversion_gets_the_settings_and_returns_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path, monkeypatch, CONVERTED)
    selection = _selection(tmp_path, EmbeddingSettings(token_budget=96))
    figures = await selection._prepare(measure_torch=True)
    assert figures == {"tokens_per_s": 12.5, "min_cosine": 1.0}
    asked = program.with_name("python.arguments").read_text("utf-8").split()
    model, cache = str(tmp_path / "m"), str(tmp_path / "cache")
    assert asked == [
        *("-P", "-m", "embedding.convert", "--model", model),
        *("--cache-dir", cache, "--token-budget", "96", "--measure"),
    ]
    await selection._prepare(measure_torch=False)
    assert "--measure" not in program.with_name("python.arguments").read_text("utf-8")


@pytest.mark.parametrize(
    ("status", "said", "error", "reason"),
    [
        (1, '{"reason": "a"}\n{"reason": "no room"}\n{"event": "b"}\n{c\n', NotReady, "no room"),
        (2, '{"reason": "no such model"}\nin f\n', SettingsError, "no such model"),
        (9, "{half\n" + "".join(f"{n}\n" for n in range(6)), NotReady, r"1 \| 2 \| 3 \| 4 \| 5"),
        (1, "", NotReady, "it said nothing"),
    ],
)
async def test_a_failed_conversion_is_an_error_with_its_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    said: str,
    error: type[NearlineError],
    reason: str,
) -> None:
    (tmp_path / "said").write_text(said, "utf-8")
    _program(tmp_path, monkeypatch, f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit {status}\n")
    with pytest.raises(error, match=f"model words could not be converted: {reason}$"):
        await _selection(tmp_path, EmbeddingSettings())._prepare(measure_torch=False)


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Puts a script in the place of Python."""
    program = folder / "python"
    program.write_text(script, "utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def _selection(folder: Path, settings: EmbeddingSettings) -> backend_selection._BackendSelection:
    model, cache = word_model(folder / "m"), folder / "cache"
    return backend_selection._BackendSelection(model, settings, ModelCache(cache, model), cache)
