"""Compares systems at equal recall."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.peers.measurement import Point


class Ratio(NamedTuple):
    """Nearline's speed at one of its points, as a multiple of a peer's at equal recall.

    peer_qps: The peer's searches per second at this recall or a better one; 0 if no width of it
    reaches the recall, and then there is no ratio (None).
    """

    ours: str
    attribute: str
    width: int
    recall: float
    qps: float
    peer: str
    peer_qps: float
    ratio: float | None


def frontier(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other point beats in both recall and speed, by recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.recall, -one.qps)):
        if not best or point.qps > best[-1].qps:
            best.append(point)
    return best[::-1]


def qps_at(points: Sequence[Point], recall: float) -> float:
    """Returns the searches per second of a system at this recall or a better one.

    Between two points of its frontier, the logarithm of the speed is linear in recall. Below its
    least recall it is as fast as there; 0 above its highest.
    """
    best = frontier(points)
    if not best or recall > best[-1].recall:
        return 0.0
    if recall <= best[0].recall:
        return best[0].qps
    for low, high in itertools.pairwise(best):
        if recall <= high.recall:
            share = (recall - low.recall) / (high.recall - low.recall)
            return math.exp((1 - share) * math.log(low.qps) + share * math.log(high.qps))
    return 0.0


def ratios(points: Sequence[Point], ours: Sequence[str]) -> list[Ratio]:
    """Returns a ratio for each point of our systems and each other system."""
    peers = [name for name in dict.fromkeys(point.system for point in points) if name not in ours]
    found = []
    for point in points:
        if point.system not in ours:
            continue
        for peer in peers:
            theirs = [
                one for one in points if (one.system, one.attribute) == (peer, point.attribute)
            ]
            if not theirs:
                continue
            qps = qps_at(theirs, point.recall)
            found.append(
                Ratio(
                    *(point.system, point.attribute, point.width, point.recall, point.qps),
                    peer=peer,
                    peer_qps=round(qps, 1),
                    ratio=round(point.qps / qps, 2) if qps else None,
                )
            )
    return found


def ratio_rows(found: Sequence[Ratio]) -> tuple[list[str], list[list[object]]]:
    """Returns columns and rows of a table: a row for each of our points, a column for each peer."""
    peers = list(dict.fromkeys(one.peer for one in found))
    rows: dict[tuple[object, ...], dict[str, str]] = {}
    for one in found:
        key = (one.ours, one.attribute or "none", one.width, one.recall, one.qps)
        cell = "not reached" if one.ratio is None else f"{one.ratio:.2f}"
        rows.setdefault(key, {})[one.peer] = cell
    columns = ["system", "filter", "width", "recall", "qps", *(f"/ {peer}" for peer in peers)]
    return columns, [
        [*key, *(cells.get(peer, "") for peer in peers)] for key, cells in rows.items()
    ]
