"""Tests of the plan by arithmetic."""

from __future__ import annotations

import math

import pytest

from benchmarks.scaling_parts.capacity import CapacityRow, Scenario, plan_capacity
from benchmarks.scaling_parts.cost_model import fit_formulas
from benchmarks.scaling_parts.measured_rows import Row
from tests.benchmarks.scaling_parts.made_up_rows import list_rows, redis_row, search_rows


def plan(rows: list[Row], scenario: Scenario) -> dict[str, CapacityRow]:
    return {line.figure: line for line in plan_capacity(fit_formulas(rows), scenario)}


def test_cores_are_requests_times_cpu_over_the_busy_share() -> None:
    lines = plan(search_rows(), Scenario(requests=1_000, peak=5_000, shards=16, busy=0.5))
    each_us = 400 + 20 * 16 + 100 * 16 + 0.5 * 16 * 20 * math.log2(10e6 / 16)
    assert lines["CPU of one of the searches"].value == pytest.approx(each_us)
    cores = lines["all requests are searches"]
    assert cores.value == pytest.approx(1_000 * each_us / 1e6 / 0.5)
    assert cores.peak == pytest.approx(5_000 * each_us / 1e6 / 0.5)
    assert cores.beyond == 10


def test_lists_add_up_router_shards_and_redis() -> None:
    lines = plan(list_rows((100_000, 1_000_000)), Scenario(shards=2))
    assert lines["CPU of one of the cold lists"].value == pytest.approx(3_000 + 2 * 1_000 + 100)
    # Shards take no part in a list that is cached.
    assert lines["CPU of one of the hot lists"].value == pytest.approx(500 + 100)


def test_memory_follows_products_and_users() -> None:
    rows = [*search_rows(), *list_rows((100_000, 1_000_000)), redis_row(1_000), redis_row(3_000)]
    lines = plan(rows, Scenario(products=10e6, users=50e6, shards=16))
    assert lines["shards of searches, one copy"].value == pytest.approx(16 * 200e6 + 10e6 * 2e3)
    lists = lines["shards of lists, one copy, all of it read"]
    assert lists.value == pytest.approx(10e6 * 5e3 + 50e6 * 400)
    assert lines["Redis, states of users"].value == pytest.approx(50e6 * 500)


def test_without_rows_only_documented_figures_are_planned() -> None:
    lines = plan([], Scenario(users=50e6, documents_per_day=8_640_000, busy=0.5))
    assert {line.source for line in lines.values()} == {"docs/performance.md"}
    assert lines["Redis, states of users"].value == 50e6 * 540
    # 100 documents a second of 8.3 ms each, at half a core's time.
    assert lines["documents, embedded and indexed"].value == pytest.approx(1.66)


def test_a_size_that_did_not_vary_is_named_in_the_plan() -> None:
    line = plan(list_rows((100_000,)), Scenario())["a router for lists"]
    assert line.source == "fit without users, which did not vary"
