"""Tests of the drawn curves."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scaling_parts.curve_plots import curve_lines, draw_curves
from tests.benchmarks.scaling_parts.made_up_rows import list_rows, search_row, search_rows


def test_a_curve_has_the_points_of_one_layout_in_order() -> None:
    rows = [search_row(1_000, 2, callers) for callers in (64, 1, 8)]
    lines = curve_lines(rows, "searches", "callers", "p99_ms")
    assert lines == {"1,000 vectors, 2 shards, separate": [(1, 5.0), (8, 5.0), (64, 5.0)]}


def test_cpu_is_the_sum_over_processes() -> None:
    rows = list_rows((100_000,))
    lines = curve_lines(rows, "lists", "items", "cpu_us")
    assert lines["4 shards, 100,000 users, cold"] == [(50_000, 7_100.0), (200_000, 7_100.0)]


def test_the_page_has_a_line_for_each_curve(tmp_path: Path) -> None:
    path = draw_curves([*search_rows(), *list_rows((100_000,))], tmp_path / "new")
    page = path.read_text("utf-8")
    # Searches: 6 by callers, 4 by vectors; lists: 2 paths of 2 numbers of shards, twice.
    assert page.count("<polyline") == 6 + 4 + 4 + 4


def test_no_rows_make_an_empty_page(tmp_path: Path) -> None:
    assert "<svg" not in draw_curves([], tmp_path).read_text("utf-8")
