"""A chart of measured indexes, recall against time, and the table of its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 300
_LEFT, _BOTTOM, _TOP = 44, 30, 14
_TICKS = (1, 2, 5)

# A row of `IndexChoice.record()["trials"]`.
TrialRow = Mapping[str, str | int | float | bool]
Scale = Callable[[float], float]


def draw(choice: Mapping[str, object]) -> str:
    """Returns a chart of the trials as SVG.

    Each trial is a dot with a title, pale if another one is better; the chosen one has a ring. A
    line connects the best recall for each time.

    Args:
        choice: `IndexChoice.record()`.
    """
    trials, chosen = _rows(choice), _chosen(choice)
    times = [float(row["latency_us"]) for row in trials]
    low, high = math.log10(max(min(times), 0.1)) - 0.05, math.log10(max(times)) + 0.05
    floor = max(0.0, min(0.9, math.floor(min(float(row["recall"]) for row in trials) * 10) / 10))

    def x(time_us: float) -> float:
        return _LEFT + (math.log10(max(time_us, 0.1)) - low) / (high - low) * (_WIDTH - _LEFT - 12)

    def y(recall: float) -> float:
        return _TOP + (1 - recall) / (1 - floor) * (_HEIGHT - _TOP - _BOTTOM)

    target = float(str(choice["target_recall"]))
    parts = [
        *_time_axis(x, low, high),
        *_recall_axis(y, floor),
        f'<line class="target" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(target):.1f}" '
        f'y2="{y(target):.1f}"><title>target recall: {target:g}</title></line>',
    ]
    line = " ".join(
        f"{x(time_us):.1f},{y(recall):.1f}" for time_us, recall in _best_by_time(trials)
    )
    parts.append(f'<polyline class="frontier" points="{line}"/>')
    for row in trials:
        same = chosen.items() <= row.items()
        centre = f'cx="{x(float(row["latency_us"])):.1f}" cy="{y(float(row["recall"])):.1f}"'
        kind = "chosen" if same else "best" if row["frontier"] else "beaten"
        parts.append(f'<circle class="{kind}" {centre} r="4"><title>{_title(row)}</title></circle>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Recall against time of the indexes tried">{"".join(parts)}</svg>'
    )


def table_rows(
    choice: Mapping[str, object], least_recall: float = 0.0
) -> list[tuple[str, str, str, str]]:
    """Returns the frontier as rows of index, recall, time and memory; marks the chosen one.

    Args:
        choice: `IndexChoice.record()`.
        least_recall: Leave out rows with less recall, except the chosen one.
    """
    chosen = _chosen(choice)
    rows = []
    for row in _rows(choice):
        same = chosen.items() <= row.items()
        if same or (row["frontier"] and float(row["recall"]) >= least_recall):
            rows.append((_name(row) + (" (chosen)" if same else ""), *_cells(row)))
    return rows


def _rows(choice: Mapping[str, object]) -> Sequence[TrialRow]:
    rows = choice["trials"]
    assert isinstance(rows, list)
    return rows


def _best_by_time(trials: Sequence[TrialRow]) -> list[tuple[float, float]]:
    """Returns time and recall of each trial that finds more than all faster ones."""
    points = sorted((float(row["latency_us"]), -float(row["recall"])) for row in trials)
    rising: list[tuple[float, float]] = []
    for time_us, recall in points:
        if not rising or -recall > rising[-1][1]:
            rising.append((time_us, -recall))
    return rising


def _chosen(choice: Mapping[str, object]) -> TrialRow:
    row = choice["chosen"]
    assert isinstance(row, dict)
    return row


def _name(row: TrialRow) -> str:
    knobs = (("ef", row["ef_search"]), ("nprobe", row["nprobe"]))
    # A space after each comma lets a narrow table break the line.
    factory = str(row["factory"]).replace(",", ", ")
    return ", ".join([factory, *(f"{name} {value}" for name, value in knobs if value)])


def _cells(row: TrialRow) -> tuple[str, str, str]:
    return (
        f"{float(row['recall']):.4f}",
        f"{float(row['latency_us']):,.0f} µs",
        f"{float(row['bytes']) / (1 << 20):,.1f} MiB",
    )


def _title(row: TrialRow) -> str:
    recall, latency, size = _cells(row)
    return escape(f"{_name(row)}: recall {recall}, {latency}, {size}")


def _time_axis(x: Scale, low: float, high: float) -> list[str]:
    base = _HEIGHT - _BOTTOM
    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{base}" y2="{base}"/>']
    for power in range(math.floor(low), math.ceil(high) + 1):
        for tick in _TICKS:
            time_us = tick * 10.0**power
            if low <= math.log10(time_us) <= high:
                parts.append(
                    f'<text x="{x(time_us):.1f}" y="{base + 16}" text-anchor="middle">'
                    f"{time_us:g} µs</text>"
                )
    return parts


def _recall_axis(y: Scale, floor: float) -> list[str]:
    steps = round((1 - floor) * (10 if floor < 0.8 else 50))
    parts = []
    for step in range(steps + 1):
        recall = floor + (1 - floor) * step / steps
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(recall):.1f}" y2="{y(recall):.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y(recall) + 4:.1f}" text-anchor="end">{recall:.2f}</text>'
        )
    return parts
