"""Segments of users: which there are, and by how much they like items more than others."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.interactions.records import Interactions
from index_builder.interactions.segments import MIN_USERS, segment_lifts, with_segments
from nearline.contract import Attributes
from retrieval.behaviour.segments import segment_names, segments_of


def had(pairs: list[tuple[int, int]], users: int, items: int) -> Interactions:
    """Returns interactions of numbered users with numbered items."""
    user, item = np.array(pairs, np.int32).T
    times, weights = np.zeros(len(user), np.int64), np.ones(len(user), np.float32)
    names = [f"u{one}" for one in range(users)], [f"i{one}" for one in range(items)]
    return Interactions(*names, user, item, times, weights)


def test_a_segment_has_enough_users_inside_and_outside() -> None:
    rows = had([(user, 0) for user in range(200)], 200, 1)
    attributes: dict[str, Attributes] = {
        f"u{user}": {
            "all": 1,
            "half": user < 100,
            "few": "yes" if user < MIN_USERS - 1 else f"no {user}",
            "enough": 5 if user < MIN_USERS else user + 1_000,
        }
        for user in range(200)
    }
    found = with_segments(rows, attributes)
    # By size, then by name; everybody is no segment, and 49 are too few.
    assert found.segments == ["half=false", "half=true", "enough=5"]
    assert found.belongs.sum(axis=0).tolist() == [100, 100, MIN_USERS]
    assert found.belongs[0].tolist() == [False, True, True]
    assert list(with_segments(rows, {}).segments) == []
    # Once one of the fifty is deleted, the segment is gone.
    del attributes["u0"]
    assert "enough=5" not in with_segments(rows, attributes).segments


def test_the_sixteen_largest_are_kept() -> None:
    rows = had([(user, 0) for user in range(2_000)], 2_000, 1)
    attributes = {f"u{user}": {"n": int(user**0.5)} for user in range(2_000)}
    sizes = with_segments(rows, attributes).belongs.sum(axis=0)
    assert len(sizes) == 16
    assert sizes.tolist() == sorted(sizes, reverse=True) and sizes[0] == 2 * 43 + 1


def test_lifts_compare_counted_with_expected_users() -> None:
    # Ten users of A had item 0, ten others item 1, everybody item 2; nobody had item 3.
    pairs = [(user, int(user >= 10)) for user in range(20)] + [(user, 2) for user in range(20)]
    # Repeated interactions of a user count once.
    rows = had(pairs + [(0, 0)] * 100, 20, 4)
    rows = rows._replace(segments=["A"], belongs=np.arange(20)[:, None] < 10)
    # Of 40 pairs, A has 20, so half of each item's users are expected.
    expected = np.log([(10 + 5) / (5 + 5), (0 + 5) / (5 + 5), (10 + 5) / (10 + 5), 1.0])
    assert segment_lifts(rows)[:, 0] == pytest.approx(expected)
    assert segment_lifts(rows)[3, 0] == segment_lifts(rows)[2, 0] == 0


def test_values_of_different_types_are_different_segments() -> None:
    assert segment_names({"a": True, "b": 1, "c": "1", "d": "é"}) == [
        *("a=true", "b=1", 'c="1"', 'd="é"'),
    ]
    known = ["b=1", "a=1", "c=1"]
    assert segments_of(segment_names({"c": 1, "b": 1, "a": True}), known) == (0, 2)
