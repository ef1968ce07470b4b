"""Tests of a small `nearline bench overload`."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.overload import bench_overload
from nearline_cli.terminal.option_groups import add_command
from tests.redis_server import needs_redis
from tests.scale import nightly


@nightly
@needs_redis
@pytest.mark.service
def test_under_overload_goodput_and_the_quiet_tenant_are_measured() -> None:
    made = Typer()
    add_command(made, bench_overload, "overload")
    words = ["--documents", "1000", "--seconds", "2", "--rounds", "1", "--times", "3", "--json"]
    result = CliRunner().invoke(made, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["capacity_per_s_3x"] > 0
    assert 0.3 < record["goodput_ratio_3x"] < 1.5
    assert 0.3 < record["served_ratio_3x"] < 1.5
    assert 0.5 < record["quiet_ratio_3x"] <= 1
    assert record["asked_per_s_3x"] == pytest.approx(3 * record["capacity_per_s_3x"], rel=0.5)
