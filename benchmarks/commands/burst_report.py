"""HTML report of a burst: arrivals, throughput, queue length and number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from index_builder.reports.html import figures, page, table

_WIDTH, _HEIGHT = 720, 130
_LEFT, _TOP, _BOTTOM = 52, 8, 20
_LINE = "stroke-width: 2; opacity: 1; fill: none"
_SOFT_LINE = "stroke: var(--soft); stroke-width: 2; opacity: 1; fill: none"
# Rates are averaged over this many samples; over a single sample they fluctuate too much.
_SMOOTH = 4

Points = Sequence[tuple[float, float]]


class _Curve(NamedTuple):
    points: Points
    style: str


def render_burst_report(row: Mapping[str, object]) -> str:
    """Returns the page of a row of `nearline bench burst`."""
    timeline = row["timeline"]
    assert isinstance(timeline, list)
    zero_s = row["lag_zero_after_s"]
    workers = _steps([(one["t"], one["workers"]) for one in timeline])
    parts = [
        "<h1>A burst of documents</h1>",
        f"<p>{row['rate']:,} documents/s, {row['burst_rate']:,} in the shaded period, then the "
        f"first rate again, then none. One worker processes {row['worker_documents_per_s']:,} per "
        f"second; up to {row['max_workers']} workers are allowed.</p>",
        figures(
            [
                (f"{row['submitted']:,}", "documents submitted"),
                (f"{row['lost']:,}", "lost"),
                (f"{row['workers_before']} to {row['max_workers_seen']}", "workers in the burst"),
                (f"{row['lag_max']:,}", "documents in the queue, maximum"),
                ("never" if zero_s is None else f"{zero_s} s", "until the queue was empty again"),
            ]
        ),
        "<h2>Documents per second: submitted (grey) and processed</h2>",
        _panel(
            row,
            [
                _Curve(_rates(timeline, "submitted"), _SOFT_LINE),
                _Curve(_rates(timeline, "done"), _LINE),
            ],
            "Documents per second",
        ),
        "<h2>Documents in the queue</h2>",
        _panel(
            row,
            [_Curve([(one["t"], one["lag"]) for one in timeline], _LINE)],
            "Documents in the queue",
        ),
        "<h2>Workers</h2>",
        _panel(row, [_Curve(workers, _LINE)], "Workers"),
        "<h2>Changes in the number of workers</h2>",
        table(_scalings(row)),
    ]
    return page("A burst of documents", parts)


def _rates(timeline: Sequence[Mapping[str, float]], name: str) -> Points:
    """Returns the growth per second of a counter."""
    return [
        (new["t"], (new[name] - old[name]) / (new["t"] - old["t"]))
        for old, new in zip(timeline, timeline[_SMOOTH:], strict=False)
    ]


def _steps(points: Points) -> Points:
    """Returns a step line through the points."""
    stepped = list(points[:1])
    for (_, before), (t, value) in pairwise(points):
        stepped += [(t, before), (t, value)]
    return stepped


def _panel(row: Mapping[str, object], curves: Sequence[_Curve], label: str) -> str:
    end_s = max(t for curve in curves for t, _ in curve.points)
    most = max(1.0, *(value for curve in curves for _, value in curve.points))

    def x(t: float) -> float:
        return _LEFT + t / end_s * (_WIDTH - _LEFT)

    def y(value: float) -> float:
        return _TOP + (1 - value / most) * (_HEIGHT - _TOP - _BOTTOM)

    start = float(str(row["steady_s"]))
    width = x(start + float(str(row["burst_s"]))) - x(start)
    floor = y(0)
    parts = [
        f'<rect x="{x(start):.1f}" y="{_TOP}" width="{width:.1f}" height="{floor - _TOP:.1f}" '
        'style="opacity: .12"/>',
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor:.1f}" y2="{floor:.1f}"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{most:,.0f}</text>',
        f'<text x="{_LEFT - 6}" y="{floor:.1f}" text-anchor="end">0</text>',
        *(
            f'<text x="{x(t):.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{t} s</text>'
            for t in range(10, int(end_s), 10)
        ),
    ]
    for curve in curves:
        line = " ".join(f"{x(t):.1f},{y(max(value, 0.0)):.1f}" for t, value in curve.points)
        parts.append(f'<polyline points="{line}" style="{curve.style}"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)} over time">'
        f"{''.join(parts)}</svg>"
    )


def _scalings(row: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    scalings = row["scalings"]
    assert isinstance(scalings, list)
    for scaling in scalings:
        yield (
            f"{scaling['t']:.1f} s",
            f"{scaling['from']} to {scaling['to']}",
            str(scaling["reason"]),
        )
