"""Tests of the comparison at equal recall."""

from __future__ import annotations

import pytest

from benchmarks.peers.comparison import Standing, fastest, frontier, standings
from benchmarks.peers.measurement import Point


def point(system: str, recall: float, qps: float, *, width: int = 64, attribute: str = "") -> Point:
    return Point(
        system, attribute, width, qps=qps, p50_ms=1.0, p99_ms=2.0, recall=recall, inserted=0.0
    )


OURS = [point("ours", 0.9, 1_000.0), point("ours", 0.96, 600.0), point("ours", 0.999, 200.0)]
PEER = [point("peer", 0.93, 900.0), point("peer", 0.955, 300.0), point("peer", 0.98, 250.0)]


def only(found: list[Standing], system: str) -> Standing:
    (one,) = [standing for standing in found if standing.system == system]
    return one


@pytest.mark.parametrize(
    ("recall", "qps"), [(0.5, 1_000.0), (0.9, 1_000.0), (0.95, 600.0), (0.96, 600.0), (0.97, 200.0)]
)
def test_the_fastest_point_is_chosen_among_those_that_reach_the_recall(
    recall: float, qps: float
) -> None:
    found = fastest(OURS, recall)
    assert found is not None
    assert found.qps == qps


def test_a_recall_that_no_width_reaches_has_no_fastest_point() -> None:
    assert fastest(OURS, 0.9999) is None


def test_a_wider_search_is_chosen_if_it_is_faster() -> None:
    points = [point("a", 0.95, 100.0, width=32), point("a", 0.97, 120.0, width=64)]
    assert fastest(points, 0.95) == points[1]


def test_the_frontier_leaves_out_points_that_another_beats_in_both() -> None:
    beaten = point("ours", 0.95, 500.0)
    assert frontier([OURS[2], beaten, OURS[0], OURS[1]]) == OURS


def test_the_ratio_is_of_our_fastest_point_at_the_recall_of_the_peer_or_better() -> None:
    # The peer reaches 0.95 with 0.955 at 300; we have 0.96 at 600.
    one = only(standings([*OURS, *PEER], "ours", [0.95]), "peer")
    assert (one.best, one.ours, one.ratio) == (PEER[1], OURS[1], 2.0)


def test_a_peer_with_more_recall_is_compared_with_a_slower_point_of_ours() -> None:
    # The peer reaches 0.97 with 0.98 at 250; 0.96 of ours is not enough.
    one = only(standings([*OURS, *PEER], "ours", [0.97]), "peer")
    assert (one.ours, one.ratio) == (OURS[2], 0.8)


def test_a_target_that_a_peer_misses_has_no_point_and_no_ratio() -> None:
    one = only(standings([*OURS, *PEER], "ours", [0.99]), "peer")
    assert (one.best, one.ours, one.ratio) == (None, None, None)


def test_a_recall_that_we_miss_has_no_ratio() -> None:
    exact = point("exact", 1.0, 10.0)
    one = only(standings([*OURS, exact], "ours", [0.95]), "exact")
    assert (one.best, one.ours, one.ratio) == (exact, None, None)


def test_without_ours_there_are_points_but_no_ratios() -> None:
    one = only(standings(PEER, "ours", [0.95]), "peer")
    assert (one.best, one.ratio) == (PEER[1], None)


def test_points_are_compared_under_the_same_filter_alone() -> None:
    points = [
        point("ours", 1.0, 100.0, attribute="half"),
        point("ours", 1.0, 900.0, attribute="tenant"),
        point("peer", 1.0, 50.0, attribute="half"),
        point("peer", 1.0, 300.0, attribute="tenant"),
    ]
    found = standings(points, "ours", [0.9])
    assert [(one.attribute, one.system, one.ratio) for one in found] == [
        ("half", "ours", 1.0),
        ("half", "peer", 2.0),
        ("tenant", "ours", 1.0),
        ("tenant", "peer", 3.0),
    ]
