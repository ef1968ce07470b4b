"""Tests of the drift of ratios."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.drift_parts.ratios import (
    BETTER,
    NEW,
    ONE,
    WITHIN,
    WORSE,
    Ratio,
    compare,
    read_baseline,
    summarise,
    write_baseline,
)
from nearline.errors import InvalidRequest

_LESS_IS_BETTER, _MORE_IS_BETTER = "search_cpu_to_floor", "search_to_floor"


def test_rounds_have_a_least_a_median_and_a_largest_ratio() -> None:
    assert summarise([3.0, 1.0, 2.0]) == Ratio(1.0, 2.0, 3.0)
    assert summarise([1.23456]) == Ratio(1.2346, 1.2346, 1.2346)


@pytest.mark.parametrize(
    ("name", "now", "change", "remark"),
    [
        (_LESS_IS_BETTER, Ratio(1.4, 1.5, 1.6), 0.5, WORSE),
        (_MORE_IS_BETTER, Ratio(1.4, 1.5, 1.6), 0.5, BETTER),
        (_LESS_IS_BETTER, Ratio(0.4, 0.5, 0.6), -0.5, BETTER),
        (_MORE_IS_BETTER, Ratio(0.4, 0.5, 0.6), -0.5, WORSE),
        # The ranges overlap.
        (_LESS_IS_BETTER, Ratio(1.1, 1.5, 1.6), 0.5, WITHIN),
        (_LESS_IS_BETTER, Ratio(1.5, 1.5, 1.5), 0.5, ONE),
    ],
)
def test_a_drift_has_a_direction(name: str, now: Ratio, change: float, remark: str) -> None:
    (drift,) = compare({name: Ratio(0.9, 1.0, 1.1)}, {name: now})
    assert drift.change == pytest.approx(change)
    assert drift.remark == remark


def test_less_than_a_tenth_is_within_the_noise() -> None:
    before = {_LESS_IS_BETTER: Ratio(0.99, 1.0, 1.01)}
    (drift,) = compare(before, {_LESS_IS_BETTER: Ratio(1.08, 1.09, 1.1)})
    assert drift.remark == WITHIN


def test_a_ratio_without_a_baseline_is_new() -> None:
    (drift,) = compare({}, {_LESS_IS_BETTER: Ratio(1.0, 1.0, 1.0)})
    assert (drift.before, drift.change, drift.remark) == (None, None, NEW)


def test_a_baseline_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    ratios = {_LESS_IS_BETTER: Ratio(1.0, 2.0, 3.0)}
    write_baseline(path, ratios, {"cpus": 2})
    assert read_baseline(path) == ratios


def test_no_file_is_an_empty_baseline(tmp_path: Path) -> None:
    assert read_baseline(tmp_path / "none.json") == {}


def test_names_that_are_no_longer_measured_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    write_baseline(path, {"of_old": Ratio(1.0, 1.0, 1.0)}, {})
    assert read_baseline(path) == {}


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        '{"ratios": []}',
        '{"ratios": {"search_to_floor": [1, 2]}}',
        '{"ratios": {"search_to_floor": [0, 1, 2]}}',
        '{"ratios": {"search_to_floor": [3, 2, 1]}}',
        '{"ratios": {"search_to_floor": [1, 2, NaN]}}',
    ],
)
def test_another_file_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ratios.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="--write"):
        read_baseline(path)
