"""Tests of a small `nearline bench suggest`."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.suggest import bench_suggest
from tests.scale import nightly


@nightly
@pytest.mark.service
def test_typed_titles_are_completed_and_timed() -> None:
    made = Typer()
    made.command()(bench_suggest)
    words = ["--documents", "500", "--seconds", "0.5", "--rate", "40", "--json"]
    result = CliRunner().invoke(made, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["requests"] == 20 and record["answered"] > 0.5
    assert 0 < record["p50_ms"] <= record["p99_ms"] < 10_000
