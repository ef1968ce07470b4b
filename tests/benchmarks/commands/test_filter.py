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
def test_documents_are_written_while_others_are_searched(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, rng.normal(size=(2_020, 16)).astype(np.float32))
    for record in run("--vectors", str(path), "--queries", "20", "--writes", "100"):
        written = record["writes_per_s"]
        assert isinstance(written, float) and written > 0


def test_filters_of_the_bench_can_be_parsed() -> None:
    assert all(parse_filter(case.filter) for case in filter_cases()[1:])


def test_too_few_vectors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.ones((12, 4), np.float32))
    with pytest.raises(InvalidRequest, match="12 vectors; 10 queries with k 10 need at least 20"):
        run("--vectors", str(path), "--queries", "10")
