"""Tables and JSON lines of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.peers.comparison import Standing, standings
from benchmarks.peers.measurement import Point
from benchmarks.peers.systems.registry import OURS, SYSTEMS
from nearline_cli.terminal.output import print_json, print_table

_POINT_COLUMNS = ("system", "filter", "width", "recall", "qps", "p50 ms", "p99 ms", "inserted/s")
_BEST_COLUMNS = (
    *("what it is", "filter", "recall >=", "width", "recall", "qps", "p50 ms", "p99 ms"),
    "Nearline / it",
)
_NOT_REACHED = "not reached"


def print_report(points: Sequence[Point], targets: Sequence[float]) -> None:
    """Prints all points, then the fastest of each system at each recall target."""
    print_table(
        _POINT_COLUMNS,
        [
            [
                *(point.system, point.attribute or "none", point.width, point.recall, point.qps),
                *(point.p50_ms, point.p99_ms, point.inserted),
            ]
            for point in points
        ],
    )
    print_table(
        _BEST_COLUMNS,
        [_best_row(one) for one in standings(points, OURS, targets)],
        title="Fastest point of each system that reaches the recall, and Nearline's qps at that "
        "point's recall or a better one, as a multiple",
    )


def print_records(
    setup: Mapping[str, object], points: Sequence[Point], targets: Sequence[float]
) -> None:
    """Prints a JSON object per line: the setup, each point, and each standing."""
    print_json({"kind": "setup"} | dict(setup))
    for point in points:
        print_json({"kind": "point"} | point._asdict())
    for one in standings(points, OURS, targets):
        points_of_it = {
            name: point._asdict() if point else None
            for name, point in (("best", one.best), ("ours", one.ours))
        }
        print_json({"kind": "standing", **one._asdict(), **points_of_it})


def _best_row(one: Standing) -> list[object]:
    label, attribute = SYSTEMS[one.system].label, one.attribute or "none"
    if one.best is None:
        return [label, attribute, one.target, *(_NOT_REACHED, "", "", "", "", "")]
    best = one.best
    return [
        *(label, attribute, one.target, str(best.width), str(best.recall), f"{best.qps:,.0f}"),
        *(f"{best.p50_ms:.2f}", f"{best.p99_ms:.2f}"),
        _NOT_REACHED if one.ratio is None else f"{one.ratio:.2f}",
    ]
