"""Tests of a small `nearline bench search`, and of `nearline load`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.search import bench_search
from nearline.errors import InvalidRequest
from nearline_cli.commands.load import load
from nearline_cli.local.processes import retrieval_process
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.scale import nightly


def app(command: object) -> Typer:
    made = Typer()
    made.command()(command)  # type: ignore[type-var]
    return made


def run(command: object, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app(command), [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record: dict[str, object] = json.loads(result.stdout)
    return record


def vectors_file(folder: Path, rng: np.random.Generator, rows: int = 2_050) -> str:
    """Writes random vectors; returns the path of the file."""
    path = folder / "vectors.npy"
    np.save(path, rng.normal(size=(rows, 16)).astype(np.float32))
    return str(path)


@pytest.mark.service
@nightly
@pytest.mark.parametrize("mode", ["colocated", "separate"])
def test_bench_prints_speed_recall_and_the_floor(
    tmp_path: Path, rng: np.random.Generator, mode: str
) -> None:
    path = vectors_file(tmp_path, rng)
    more = ("--separate",) if mode == "separate" else ()
    record = run(
        bench_search, "--vectors", path, "--queries", "50", "--seconds", "0.5",
        "--rounds", "1", *more,
    )  # fmt: skip
    assert (record["n"], record["dim"], record["mode"]) == (2_000, 16, mode)
    for name in ("qps", "p50_ms", "p99_ms", "build_s", "rss_bytes", "raw_qps", "floor_qps",
                 "floor_p99_ms", "ratio_to_floor", "floor_to_raw"):  # fmt: skip
        value = record[name]
        assert isinstance(value, int | float)
        assert value > 0, name
    for name in ("recall@10", "floor_recall"):
        value = record[name]
        assert isinstance(value, float)
        assert 0.9 <= value <= 1.0


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (np.ones((30, 4), np.float32), "30 vectors; 50 queries"),
        (np.ones(30, np.float32), r"shape \(30,\)"),
        (np.ones((30, 4), np.int64), "int64"),
    ],
)
def test_bench_refuses_an_unusable_matrix(tmp_path: Path, matrix: np.ndarray, text: str) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, matrix)
    with pytest.raises(InvalidRequest, match=text):
        run(bench_search, "--vectors", str(path), "--queries", "50")


@pytest.mark.service
async def test_load_sends_at_its_rate_and_counts_errors(tmp_path: Path) -> None:
    write_snapshot(tmp_path, documents_of(np.eye(4, dtype=np.float32)), fingerprint="")
    vectors, texts = tmp_path / "vectors.npy", tmp_path / "texts.txt"
    np.save(vectors, np.eye(4, dtype=np.float32))
    texts.write_text("hello\n\nworld\n")
    async with retrieval_process(tmp_path) as service:
        arguments = ("--address", service.address, "--rate", "40", "--seconds", "0.5")
        record = await asyncio.to_thread(run, load, *arguments, "--vectors", str(vectors))
        assert (record["sent"], record["ok"], record["errors"]) == (20, 20, {})
        p50, top = record["p50_ms"], record["max_ms"]
        assert isinstance(p50, float) and isinstance(top, float)
        assert 0 < p50 <= top
        with pytest.raises(InvalidRequest, match="supplied by its owner"):
            await asyncio.to_thread(run, load, *arguments, "--texts", str(texts))


@pytest.mark.parametrize("arguments", [(), ("--texts", "a", "--vectors", "b")])
def test_load_requires_exactly_one_kind_of_query(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="use either --texts"):
        run(load, *arguments)
