"""A short `nearline bench hostile`: others are served while clients misbehave."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.hostile import bench_hostile
from benchmarks.workloads.hostile_clients import ATTACKS
from tests.redis_server import needs_redis
from tests.scale import nightly

_PROCESSES = ("retrieval", "gateway")


@pytest.mark.service
@pytest.mark.long
@nightly
@pytest.mark.timeout(900)
@needs_redis
def test_others_are_served_while_clients_misbehave() -> None:
    made = Typer()
    made.command()(bench_hostile)
    words = ["--seconds", "1", "--every", "0.3", "--grace", "2", "--sockets", "500", "--json"]
    words += [word for one in _PROCESSES for word in ("--process", one)]
    result = CliRunner().invoke(made, words)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["attack"], row["process"]) for row in rows} == {
        (attack, one) for attack in ATTACKS for one in _PROCESSES
    }, result.output
    assert [row for row in rows if row["missed"]] == []


def test_an_attack_that_does_not_exist_is_refused_with_those_that_do() -> None:
    made = Typer()
    made.command()(bench_hostile)
    result = CliRunner().invoke(made, ["--attack", "tickle"], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert f"--attack 'tickle' is none of {', '.join(ATTACKS)}" in result.output
