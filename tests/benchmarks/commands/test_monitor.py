"""Tests of a small `nearline bench monitor`, with real routers and their metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.monitor import bench_monitor
from tests.scale import nightly


@nightly
@pytest.mark.service
def test_the_reported_recall_matches_the_recall_of_the_replies(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, rng.normal(size=(3_050, 24)).astype(np.float32))
    app = Typer()
    app.command()(bench_monitor)
    arguments = ("--vectors", str(path), "--queries", "50", "--seconds", "1", "--rounds", "1",
                 "--index", "HNSW4", "--ef", "10", "--sample", "0.2", "--json")  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["n"] == 3_000
    # A graph so thin, searched so narrowly, misses much.
    assert 0.2 < record["recall_offline"] < 0.9
    assert record["compared"] >= 40
    # Five standard deviations of a mean of so many recalls.
    assert record["difference"] < 5 * 0.25 / record["compared"] ** 0.5
    for name in ("qps", "qps_unwatched", "ratio", "p99_ms", "p99_ms_unwatched"):
        assert record[name] > 0, name
