"""Tests of a small `nearline bench rollout`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.rollout import bench_rollout
from benchmarks.workloads.rollout_simulation import (
    BLOCK,
    CanaryScenario,
    SimulationResult,
    resample_latencies,
    sample_recalls,
    simulate,
)
from nearline.errors import InvalidRequest
from retrieval.rollout.analysis import CanaryLimits
from tests.scale import nightly


def run(*arguments: str) -> dict[str, object]:
    app = Typer()
    app.command()(bench_rollout)
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record: dict[str, object] = json.loads(result.stdout)
    return record


def outcome(setting: CanaryScenario, rng: np.random.Generator, users: int = 0) -> SimulationResult:
    trace_s = np.exp(0.4 * rng.normal(size=3_000)) / 100
    return simulate(
        trace_s, setting, CanaryLimits(min_recall=0.94), runs=3, requests=6_000, share=0.2,
        recall_sample=0.1, users=users, seed=5,
    )  # fmt: skip


@pytest.mark.parametrize("users", [0, 5_000])
def test_a_good_canary_is_not_aborted(rng: np.random.Generator, users: int) -> None:
    good = outcome(CanaryScenario(), rng, users)
    assert (good.rate, good.median_requests) == (0.0, None)


@pytest.mark.parametrize(
    ("setting", "tests"),
    [
        (CanaryScenario(slower=1.4), {"latency", "tail_latency"}),
        (CanaryScenario(recall=0.8), {"recall"}),
    ],
)
def test_a_bad_canary_is_aborted_by_the_matching_test(
    rng: np.random.Generator, setting: CanaryScenario, tests: set[str]
) -> None:
    bad = outcome(setting, rng)
    assert bad.rate == 1.0
    assert set(bad.tests) <= tests
    assert all(0 < one < 6_000 for one in bad.backed_out)


def test_a_run_is_reproducible(rng: np.random.Generator) -> None:
    again = np.random.default_rng(20261125)
    assert outcome(CanaryScenario(slower=1.4), rng) == outcome(CanaryScenario(slower=1.4), again)


def test_latencies_are_drawn_in_blocks_of_neighbours(rng: np.random.Generator) -> None:
    drawn = resample_latencies(np.arange(1_000.0), 3 * BLOCK + 7, rng)
    assert drawn.shape == (3 * BLOCK + 7,)
    steps = np.diff(drawn) % 1_000 != 1
    assert set(np.flatnonzero(steps) % BLOCK) <= {BLOCK - 1}


def test_recalls_are_tenths_with_the_requested_mean(rng: np.random.Generator) -> None:
    for mean in (0.8, 0.99):
        recalls = sample_recalls(mean, 20_000, rng)
        assert set(np.round(recalls * 10, 9) % 1) == {0.0}
        assert recalls.mean() == pytest.approx(mean, abs=0.01)


def test_a_trace_is_read_and_the_figures_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("0.001\n0.002\n0.003\n0.004\n")
    record = run("--trace", str(path), "--runs", "1", "--requests", "500")
    assert (record["trace_requests"], record["trace_p50_ms"]) == (4, 2.0)
    assert record["false_alarm_rate"] == 0.0


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    for text in ("", "fast\n", "-1\n", "nan\n"):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match="trace"):
            run("--trace", str(path), "--runs", "1")


@nightly
@pytest.mark.service
def test_a_trace_is_recorded_from_a_real_router(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    record = run(
        "--seconds", "1", "--rate", "100", "--runs", "1", "--requests", "500",
        "--save-trace", str(path),
    )  # fmt: skip
    assert record["trace_requests"] == 100
    assert len(path.read_text().split()) == 100
