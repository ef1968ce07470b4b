"""Tests of small `nearline bench experiments`."""

from __future__ import annotations

import json

from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.experiments import bench_experiments, summarize
from benchmarks.workloads.experiment_simulation import (
    Experiment,
    ExperimentScenario,
    run_experiment,
)


def run(scenario: ExperimentScenario, runs: int) -> list[Experiment]:
    return [
        run_experiment(
            scenario, number, users=5_000, rate=0.2, share=0.5, min_effect=0.6, most=10_000, seed=3
        )
        for number in range(runs)
    ]


def test_the_better_arm_is_found_and_a_hostile_tenant_turns_nothing_round() -> None:
    found = run(ExperimentScenario(effect=0.6), 8)
    assert sum(one.verdict == one.truth for one in found) >= 7
    assert {one.truth for one in found} == {"better", "worse"}
    assert run(ExperimentScenario(effect=0.6), 8) == found
    for one in run(ExperimentScenario(effect=0.6, hostile=True), 4):
        assert one.verdict in ("", one.truth)
    for one in run(ExperimentScenario(effect=0.0, tenants=False), 4):
        assert (one.truth, one.verdict) == ("", "") and one.stated


def test_experiments_are_counted() -> None:
    ends = [("better", "better", 10), ("worse", "better", 30), ("better", "", 50), ("", "", 70)]
    experiments = [
        Experiment(truth=truth, verdict=verdict, lists=lists, stated=not verdict)
        for truth, verdict, lists in ends
    ]
    assert summarize(experiments) == {
        "right": 0.25, "wrong": 0.25, "median_lists_of_verdicts": 20, "median_lists_stated": 60,
    }  # fmt: skip


def test_the_figures_are_printed() -> None:
    app = Typer()
    app.command()(bench_experiments)
    words = ["--runs", "1", "--users", "500", "--most", "500", "--processes", "1", "--json"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert set(record["better_arm"]) >= {"right", "wrong"} and record["runs"] == 1
