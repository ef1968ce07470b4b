"""Tests of a small `nearline bench filter`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.filter import bench_filter, filter_cases
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from tests.scale import nightly


def run(*arguments: str) -> list[dict[str, object]]:
    made = Typer()
    made.command()(bench_filter)
    result = CliRunner().invoke(made, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@nightly
@pytest.mark.service
def test_every_filter_has_a_row_with_speed_and_recall(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, rng.normal(size=(3_020, 16)).astype(np.float32))
    records = run("--vectors", str(path), "--queries", "20")
    assert [record["filter"] for record in records] == [case.name for case in filter_cases()]
    assert records[0]["selectivity"] == 1 and records[0]["p50_ratio"] == 1
    for record in records:
        matches = record["matches"]
        assert isinstance(matches, int)
        assert record["fewest_hits"] == min(10, matches)
        recall, p50_ms = record["recall@10"], record["p50_ms"]
        assert isinstance(recall, float) and isinstance(p50_ms, float)
        assert 0.95 <= recall <= 1 and p50_ms > 0
        assert record["strategy"] or record["filter"] == "none"


@nightly
@pytest.mark.service
def test_a_kept_snapshot_is_searched_again_while_documents_are_written(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path, kept = tmp_path / "vectors.npy", tmp_path / "kept"
    np.save(path, rng.normal(size=(2_020, 16)).astype(np.float32))
    words = ("--vectors", str(path), "--queries", "20", "--folder", str(kept))
    first = run(*words)
    built = (kept / "rows.npy").stat().st_mtime_ns
    again = run(*words, "--writes", "100")
    assert (kept / "rows.npy").stat().st_mtime_ns == built
    assert not {name for name in kept.iterdir() if name.is_dir()} - {kept / "store"}
    for one, other in zip(first, again, strict=True):
        assert one["matches"] == other["matches"] and one["recall@10"] == other["recall@10"]
        written = other["writes_per_s"]
        assert isinstance(written, float) and written > 0
    with pytest.raises(InvalidRequest, match="was prepared with"):
        run(*words, "--k", "5")


def test_filters_of_the_bench_can_be_parsed() -> None:
    assert all(parse_filter(case.filter) for case in filter_cases()[1:])


def test_too_few_vectors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.ones((12, 4), np.float32))
    with pytest.raises(InvalidRequest, match="12 vectors; 10 queries with k 10 need at least 20"):
        run("--vectors", str(path), "--queries", "10")


def test_a_folder_with_other_files_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.ones((40, 4), np.float32))
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InvalidRequest, match="holds other files, such as notes"):
        run("--vectors", str(path), "--queries", "10", "--folder", str(tmp_path))
    with pytest.raises(InvalidRequest, match="is a file"):
        run("--vectors", str(path), "--queries", "10", "--folder", str(path))
