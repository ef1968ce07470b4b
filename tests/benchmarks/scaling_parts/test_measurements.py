"""Tests of what a run measures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scaling_parts.measured_rows import MeasuredRows
from benchmarks.scaling_parts.measurements import CurveSizes, missing_measurements
from benchmarks.scaling_parts.search_curve import Turns
from tests.benchmarks.scaling_parts.made_up_rows import list_row, redis_row, search_row

_SIZES = CurveSizes(
    only=("searches", "lists", "redis"),
    sizes=(2_000, 1_000),
    shards=(1, 2),
    callers=(1, 8),
    places=("separate",),
    users=(1_000,),
    redis_users=(500,),
    dim=384,
    queries=10,
    factory="HNSW32,Flat",
    recall=0.9,
    rate=10.0,
    turns=Turns(2, 3.0),
)


def texts(sizes: CurveSizes, measured: MeasuredRows) -> list[str]:
    return [one.text for one in missing_measurements(Path("work"), sizes, measured)]


def test_small_sizes_come_first() -> None:
    assert texts(_SIZES, MeasuredRows(None)) == [
        "1,000 vectors, 1 shards, separate",
        "1,000 vectors, 2 shards, separate",
        "2,000 vectors, 1 shards, separate",
        "2,000 vectors, 2 shards, separate",
        "1,000 items, 1,000 users, 1 shards",
        "1,000 items, 1,000 users, 2 shards",
        "2,000 items, 1,000 users, 1 shards",
        "2,000 items, 1,000 users, 2 shards",
        "500 users in Redis",
    ]


def test_what_has_rows_is_not_measured_again() -> None:
    measured = MeasuredRows(None)
    sizes = _SIZES._replace(sizes=(1_000,), shards=(1,))
    measured.add(search_row(1_000, 1, 1))
    measured.add(list_row(1_000, 1_000, 1, "cold"))
    measured.add(redis_row(500))
    # A number of callers and the hot path are missing.
    assert texts(sizes, measured) == [
        "1,000 vectors, 1 shards, separate",
        "1,000 items, 1,000 users, 1 shards",
    ]
    measured.add(search_row(1_000, 1, 8))
    measured.add(list_row(1_000, 1_000, 1, "hot"))
    assert texts(sizes, measured) == []


def test_more_rounds_take_their_seconds_longer() -> None:
    def seconds(sizes: CurveSizes) -> float:
        found = missing_measurements(Path("work"), sizes, MeasuredRows(None))
        return sum(one.seconds for one in found)

    searches = _SIZES._replace(only=("searches",), sizes=(1_000,), shards=(1,))
    longer = searches._replace(turns=Turns(4, 3.0))
    # Two rounds of three seconds for each of two numbers of callers.
    assert round(seconds(longer) - seconds(searches), 6) == 12.0
