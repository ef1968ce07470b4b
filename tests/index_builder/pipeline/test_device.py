"""Builds use the GPU that they are given, and say what the CPU did in its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest
from tests.index_builder import gpu_stand_in
from tests.index_builder.embedders import HashEmbedder

pytestmark = pytest.mark.service


async def _built(folder: Path, device: str, embedder: HashEmbedder | None = None) -> BuildResult:
    if embedder is None:
        matrix = np.random.default_rng(1).standard_normal((1_200, 12)).astype(np.float32)
        items = [Item(id=f"{n:05}", vector=row) for n, row in enumerate(matrix)]
    else:
        items = [Item(id="a", title="Lamp", text="A lamp.")]
    index = IndexOptions(factory="HNSW16,Flat", threads=1)
    options = BuildOptions(store=str(folder), device=device, index=index, golden_queries=50)
    return await build_snapshot(items, options, embedder)


def _index(result: BuildResult) -> bytes:
    return (result.folder / "shards" / "000" / "dense.faiss").read_bytes()


async def test_the_result_and_the_report_name_the_device_and_what_it_did_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = await _built(tmp_path / "cpu", "auto")
    assert (on_cpu.device, [*on_cpu.device_notes]) == ("cpu", [])
    gpu_stand_in.pretend(monkeypatch)
    works = await _built(tmp_path / "works", "auto")
    assert (works.device, [*works.device_notes]) == ("cuda:0", [])
    assert works.recall_at_10 >= 0.95
    assert {path.name for path in works.folder.rglob("*")} == {
        path.name for path in on_cpu.folder.rglob("*")
    }
    gpu_stand_in.pretend(monkeypatch, "killed")
    killed = await _built(tmp_path / "killed", "cuda:1")
    assert killed.device == "cuda:1"
    [note] = killed.device_notes
    assert note.startswith("index of shard 0: built on the CPU, because its process was ended by")
    assert killed.record()["device_notes"] == [note]
    report = json.loads((killed.folder / "golden" / "report.json").read_text())
    assert (report["device"], report["device_notes"]) == ("cuda:1", [note])
    assert _index(killed) == _index(on_cpu)


async def test_a_named_gpu_that_is_missing_ends_a_build_before_any_text_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HashEmbedder()
    gpu_stand_in.pretend(monkeypatch, "absent")
    with pytest.raises(InvalidRequest, match="device is cuda:0, but CUDA shows 0"):
        await _built(tmp_path, "cuda:0", embedder)
    assert embedder.texts == []
