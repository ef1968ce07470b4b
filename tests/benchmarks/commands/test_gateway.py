"""Tests of a small `nearline bench gateway`."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.gateway import bench_gateway
from tests.scale import nightly


@nightly
@pytest.mark.service
def test_searches_and_first_events_are_measured_on_both_sides() -> None:
    made = Typer()
    made.command()(bench_gateway)
    words = ["--documents", "500", "--seconds", "0.5", "--rounds", "1", "--json"]
    result = CliRunner().invoke(made, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["ratio"] == pytest.approx(record["http_per_s"] / record["grpc_per_s"], rel=0.01)
    assert 0 < record["grpc_p50_ms"] < 10_000
    assert 0 < record["http_first_event_ms"] < 10_000
