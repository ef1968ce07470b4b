"""Compares systems at equal recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.peers.measurement import Point


class Standing(NamedTuple):
    """A system at a recall target, and Nearline alongside it.

    target: Least recall. best: The system's fastest point that reaches the target; None if no
    width does. ours: Nearline's fastest point whose recall is at least that of `best`; None if
    there is none. ratio: Searches per second of `ours` divided by those of `best`; None without
    both.
    """

    system: str
    attribute: str
    target: float
    best: Point | None
    ours: Point | None
    ratio: float | None


def fastest(points: Sequence[Point], recall: float) -> Point | None:
    """Returns the point with the most searches per second at this recall or a better one."""
    reached = [point for point in points if point.recall >= recall]
    return max(reached, key=lambda point: point.qps, default=None)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other point beats in both recall and speed, by recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.recall, -one.qps)):
        if not best or point.qps > best[-1].qps:
            best.append(point)
    return best[::-1]


def standings(points: Sequence[Point], ours: str, targets: Sequence[float]) -> list[Standing]:
    """Returns a standing for each filter, target and system, in this order.

    Args:
        points: Points of all systems; the order of their filters and systems is kept.
        ours: Name of the system that others are compared with.
        targets: Recalls to reach, 0 to 1.
    """
    found = []
    for attribute in dict.fromkeys(point.attribute for point in points):
        by_system: dict[str, list[Point]] = {}
        for point in points:
            if point.attribute == attribute:
                by_system.setdefault(point.system, []).append(point)
        for target in targets:
            for system, own in by_system.items():
                best = fastest(own, target)
                match = fastest(by_system.get(ours, ()), best.recall) if best else None
                ratio = round(match.qps / best.qps, 2) if best and match else None
                found.append(Standing(system, attribute, target, best, match, ratio))
    return found
