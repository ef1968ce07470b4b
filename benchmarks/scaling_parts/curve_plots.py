"""Draws the curves as a page of HTML."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TypeAlias

from benchmarks.scaling_parts.measured_rows import LISTS, SEARCHES, Row
from index_builder.reports.html import page

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 260, 12, 32
_CPU_US = "cpu_us"
# Values within a factor of this are drawn in one picture of full height.
_LEAST_SPAN = math.log(10)

Lines: TypeAlias = dict[str, list[tuple[float, float]]]


def draw_curves(rows: Sequence[Row], folder: Path) -> Path:
    """Writes `scaling.html` into a folder, which is created; returns its path."""
    parts = ["<h1>Searches and lists by size</h1>"]
    for kind, along, name, title in (
        (SEARCHES, "callers", "p99_ms", "Searches: p99 in ms, by callers"),
        (SEARCHES, "vectors", _CPU_US, "Searches: CPU in us, by vectors"),
        (LISTS, "items", "p99_ms", "Lists: p99 in ms, by items"),
        (LISTS, "items", _CPU_US, "Lists: CPU in us, by items"),
    ):
        if lines := curve_lines(rows, kind, along, name):
            parts += [f"<h2>{escape(title)}</h2>", "".join(_picture(lines, title))]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scaling.html"
    path.write_text(page("Scaling", parts), "utf-8")
    return path


def curve_lines(rows: Sequence[Row], kind: str, along: str, name: str) -> Lines:
    """Returns the points of each curve, in the order of their first coordinate.

    Args:
        rows: Measured rows.
        kind: Kind of the rows that count.
        along: Figure of a row that is drawn from left to right.
        name: Figure that is drawn upwards; "cpu_us" is the sum over all processes.
    """
    names = ("vectors", "shards", "layout", "callers", "items", "users", "path")
    lines: Lines = defaultdict(list)
    for row in rows:
        if row["kind"] == kind:
            about = [one for one in names if one in row and one != along]
            label = ", ".join(_label(one, row[one]) for one in about)
            cpu_us = sum(float(one) for key, one in row.items() if key.endswith("_us"))
            lines[label].append(
                (float(row[along]), cpu_us if name == _CPU_US else float(row[name]))
            )
    return {label: sorted(points) for label, points in lines.items()}


def _label(name: str, value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,g} {name}"


def _picture(lines: Lines, title: str) -> Iterator[str]:
    """Yields a picture with both axes by the logarithm."""
    points = [point for line in lines.values() for point in line]
    (x_low, x_span), (y_low, y_span) = (
        _range([max(one, 1e-9) for one in axis]) for axis in zip(*points, strict=True)
    )

    def x(value: float) -> float:
        share = (math.log(value) - x_low) / x_span
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (math.log(max(value, 1e-9)) - y_low) / y_span
        return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)

    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    for value in sorted({one for one, _ in points}):
        yield f'<text x="{x(value):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{value:,g}</text>'
    for value in (min(one for _, one in points), max(one for _, one in points)):
        yield f'<text x="{_LEFT - 8}" y="{y(value):.1f}" text-anchor="end">{value:,.4g}</text>'
    for number, (label, line) in enumerate(lines.items()):
        colour = f"hsl({number * 137 % 360} 65% 50%)"
        drawn = " ".join(f"{x(one):.1f},{y(value):.1f}" for one, value in line)
        yield f'<polyline points="{drawn}" style="stroke: {colour}; opacity: 1"/>'
        for one, value in line:
            yield f'<circle cx="{x(one):.1f}" cy="{y(value):.1f}" r="3" style="fill: {colour}"/>'
        place = f'x="{_WIDTH - _RIGHT + 16}" y="{_TOP + 12 * (number + 1)}"'
        yield f'<text {place} style="fill: {colour}; font-size: 10px">{escape(label)}</text>'
    yield "</svg>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the least logarithm, and the span of all, which is not 0."""
    low, high = math.log(min(values)), math.log(max(values))
    return low, max(high - low, _LEAST_SPAN)
