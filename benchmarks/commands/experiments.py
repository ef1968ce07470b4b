"""`nearline bench experiments`: simulated rollouts whose true effect on clicks is known."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from benchmarks.workloads.experiment_simulation import (
    Experiment,
    ExperimentScenario,
    run_experiments,
)
from nearline_cli.terminal.output import JsonFlag, print_figures


def bench_experiments(
    runs: Annotated[int, typer.Option(min=1, help="Experiments per scenario.")] = 500,
    users: Annotated[int, typer.Option(min=1, help="Users.")] = 30_000,
    rate: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Mean share of lists with a click.")
    ] = 0.1,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of the canary.")] = 0.5,
    effect: Annotated[
        float,
        typer.Option(
            min=0.01, max=1.0, help="True change of the click rate, and the least one to find."
        ),
    ] = 0.4,
    most: Annotated[int, typer.Option(min=100, help="Lists after which one ends.")] = 40_000,
    processes: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random draws.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Simulate rollouts with a known truth, and count the verdicts that are right or wrong.

    For example: nearline bench experiments --runs 500

    Verdicts are read every 20 clicks. Scenarios: one tenant and five, with a better arm and with
    none; and five of which the largest clicks only in lists of one arm, which is the worse one if
    there is one.
    """
    scenarios = {
        "better_arm_one_tenant": ExperimentScenario(effect=effect, tenants=False),
        "better_arm": ExperimentScenario(effect=effect),
        "no_difference_one_tenant": ExperimentScenario(effect=0.0, tenants=False),
        "no_difference": ExperimentScenario(effect=0.0),
        "better_arm_hostile_tenant": ExperimentScenario(effect=effect, hostile=True),
        "no_difference_hostile_tenant": ExperimentScenario(effect=0.0, hostile=True),
    }
    record: dict[str, object] = {
        "runs": runs, "users": users, "rate": rate, "share": share, "effect": effect, "seed": seed,
    }  # fmt: skip
    for number, (name, scenario) in enumerate(scenarios.items()):
        done = run_experiments(
            scenario, runs=runs, users=users, rate=rate, share=share, min_effect=effect,
            most=most, seed=seed + number, processes=processes,
        )  # fmt: skip
        record[name] = summarize(done)
    print_figures(record, as_json=as_json)


def summarize(experiments: list[Experiment]) -> dict[str, object]:
    """Returns the shares of experiments that ended right and wrong, and their sizes in lists."""
    verdicts = [one for one in experiments if one.verdict]
    at_size = [one.lists for one in experiments if one.stated]
    return {
        "right": sum(one.verdict == one.truth for one in verdicts) / len(experiments),
        "wrong": sum(one.verdict != one.truth for one in verdicts) / len(experiments),
        "median_lists_of_verdicts": _median([one.lists for one in verdicts]),
        "median_lists_stated": _median(at_size),
    }


def _median(values: list[int]) -> float | None:
    return float(np.median(values)) if values else None
