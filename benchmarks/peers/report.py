"""Tables, JSON lines and the plot of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers import plot
from benchmarks.peers.comparison import ratio_rows, ratios
from benchmarks.peers.measurement import Point
from benchmarks.peers.systems.registry import OURS, SYSTEMS
from nearline_cli.terminal.output import print_note, print_table

_COLUMNS = ("system", "filter", "width", "recall", "qps", "p50 ms", "p99 ms", "written/s")


def print_report(points: Sequence[Point], load_s: Mapping[str, float]) -> None:
    """Prints what was measured, and the ratios to peers at equal recall."""
    rows = [
        [
            *(point.system, point.attribute or "none", point.width, point.recall, point.qps),
            *(point.p50_ms, point.p99_ms, point.written),
        ]
        for point in points
    ]
    print_table(_COLUMNS, rows)
    found = ratios(points, OURS)
    if found:
        print_table(
            *ratio_rows(found),
            title="Nearline's qps as a multiple of each peer's at the same recall or a better one "
            "(logarithm of qps linear between the peer's points)",
        )
    print_table(["system", "loaded in s"], [[name, round(s, 1)] for name, s in load_s.items()])


def write_lines(path: Path, setup: Mapping[str, object], points: Sequence[Point]) -> None:
    """Writes a JSON object per line: the setup, each point, and each ratio."""
    records = [
        {"kind": "setup"} | dict(setup),
        *({"kind": "point"} | point._asdict() for point in points),
        *({"kind": "ratio"} | one._asdict() for one in ratios(points, OURS)),
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def write_plot(path: Path, points: Sequence[Point], title: str) -> None:
    """Writes the plot, or notes why there is none."""
    if wanted := plot.missing():
        print_note(f"no plot: install {wanted}")
        return
    plot.plot(points, {name: system.label for name, system in SYSTEMS.items()}, path, title)
