"""What the window counts is what a loop over all interactions counts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from nearline.times import DAY_US
from retrieval.trends.interaction_window import InteractionWindow, Row, Trained
from retrieval.trends.trend_lists import NO_TRENDS, TrendItems, TrendLists

IDS = [f"i{number}" for number in range(6)]
OWNERS = [3, 8, 2**63 + 4, 2**64 - 1, 16]
rows_drawn = st.lists(
    st.builds(
        Row,
        st.sampled_from(OWNERS),
        st.sampled_from(IDS),
        st.integers(0, 40).map(lambda day: day * DAY_US),
        st.integers(0, 100),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    max_size=40,
)


def filled(*batches: Sequence[Row], limit: int = 1_000) -> InteractionWindow:
    window = InteractionWindow(limit)
    for batch in batches:
        window.add(batch)
    return window


def counted(rows: Iterable[Row], trained: Trained) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the scores of trending and popular items, by a loop."""
    rows = list(rows)
    newest = max([trained.newest_us, *(one.time_us for one in rows)])
    span = (newest - min((one.time_us for one in rows), default=newest)) / DAY_US
    days = 7.0 if trained.newest_us else min(7.0, span / 4) or math.inf
    trending: dict[str, float] = defaultdict(float)
    popular: dict[str, float] = defaultdict(float)
    for one in rows:
        if one.time_us > trained.newest_us:
            age = (newest - one.time_us) / DAY_US
            trending[one.item_id] += one.weight * math.exp(-age / days)
            popular[one.item_id] += one.weight * math.exp(-age / trained.popular_days)
    return dict(trending), dict(popular)


def related(rows: Sequence[Row], item_id: str) -> dict[str, float]:
    """Returns the scores of what goes with an item, by a loop."""
    of_owner: dict[int, set[str]] = defaultdict(set)
    for one in rows:
        of_owner[one.owner].add(one.item_id)
    visitors = [had for had in of_owner.values() if item_id in had]
    both = Counter(other for had in visitors for other in had if other != item_id)
    counts = Counter(one.item_id for one in rows)
    return {
        other: n / len(visitors) ** 0.5 / counts[other] ** 0.25
        for other, n in both.items()
        if n >= 2
    }


def check(found: TrendItems, expected: dict[str, float]) -> None:
    assert dict(zip(found.ids, found.scores, strict=True)) == pytest.approx(expected, rel=1e-6)
    pairs = list(zip([-one for one in found.scores], found.ids, strict=True))
    assert pairs == sorted(pairs)


@given(rows_drawn, st.sampled_from([Trained(), Trained(20 * DAY_US, {}, 15.0)]))
def test_trends_are_sums_that_fade(rows: list[Row], trained: Trained) -> None:
    lists = filled(rows).trends(trained)
    trending, popular = counted(rows, trained)
    check(lists.trending, trending)
    check(lists.popular, popular)
    assert lists.trained_us == trained.newest_us


@given(rows_drawn)
def test_related_items_have_visitors_in_common(rows: list[Row]) -> None:
    found = filled(rows).related(["nobody", *IDS])
    assert set(found) == {"nobody", *IDS}
    for item_id, items in found.items():
        check(items, related(rows, item_id))


@given(rows_drawn, st.lists(st.integers(0, 40), max_size=3))
def test_batches_do_not_matter(rows: list[Row], cuts: list[int]) -> None:
    ends = sorted(min(one, len(rows)) for one in cuts)
    parts = [rows[a:b] for a, b in zip([0, *ends], [*ends, len(rows)], strict=True)]
    once, often = filled(rows), filled(*parts)
    assert once.trends(Trained()) == often.trends(Trained())
    assert once.related(IDS) == often.related(IDS)


@given(rows_drawn, rows_drawn, st.dictionaries(st.sampled_from(OWNERS), st.integers(0, 100)))
def test_an_erased_owner_was_never_seen(
    rows: list[Row], later: list[Row], erased: dict[int, int]
) -> None:
    window = filled(rows)
    items = window.erase(erased)
    left = [one for one in rows if one.arrived_ms > erased.get(one.owner, -1)]
    assert items == {one.item_id for one in rows if one not in left}
    window.add(later)
    clean = filled(left, later)
    assert window.trends(Trained()) == clean.trends(Trained())
    assert window.related(IDS) == clean.related(IDS)
    assert len(window) == len(clean)


@given(rows_drawn, st.integers(0, 100))
def test_interactions_expire_by_the_time_they_were_logged(rows: list[Row], before: int) -> None:
    window = filled(rows)
    window.expire(before)
    clean = filled([one for one in rows if one.arrived_ms >= before])
    assert window.trends(Trained()) == clean.trends(Trained())
    assert sorted(window.most_visited(10)) == sorted(clean.most_visited(10))


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_beyond_the_limit_whole_owners_are_left_out(seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, 2**64, 40, np.uint64).tolist()
    rows = [Row(owners[at % 40], IDS[at % 6], at, at, 1.0) for at in range(400)]
    window = filled(rows[:150], rows[150:], limit=limit)
    kept = [one for one in rows if one.owner % window.scale == 0]
    assert len(window) == len(kept) <= limit
    # No more than necessary.
    assert window.scale == 1 or sum(one.owner % (window.scale // 2) == 0 for one in rows) > limit
    sampled = filled(kept)
    assert window.related(IDS) == sampled.related(IDS)
    found, expected = window.trends(Trained()).popular, sampled.trends(Trained()).popular
    assert found.ids == expected.ids
    assert list(found.scores) == [window.scale * one for one in expected.scores]


def test_only_the_newest_visitors_and_their_newest_items_count() -> None:
    old = [Row(owner, item, owner, 0, 1.0) for owner in range(1, 3) for item in ("a", "old")]
    new = [Row(owner, "a", owner, 0, 1.0) for owner in range(1_000, 1_100)]
    assert filled(old).related(["a"])["a"].ids == ("old",)
    assert filled(old, new).related(["a"])["a"].ids == ()
    many = [Row(7, f"x{n:02d}", n, 0, 1.0) for n in range(40)]
    twice = [*many, *(one._replace(owner=9) for one in many)]
    assert filled(twice).related(["x39"])["x39"].ids == tuple(f"x{n}" for n in range(10, 39))


def test_lists_are_encoded_and_damaged_ones_are_empty() -> None:
    lists = filled([Row(1, "a", DAY_US, 0, 2.0), Row(2, "ü", 9 * DAY_US, 0, 1.0)]).trends(Trained())
    fields = lists.encode()
    assert TrendLists.decode(fields["lists"]) == lists
    assert fields["version"] != NO_TRENDS.encode()["version"]
    for damaged in (None, b"", b"\xff\xff", fields["lists"][:-1]):
        assert TrendLists.decode(damaged) == NO_TRENDS
    assert TrendItems.decode(b"\x0a\xff") == TrendItems((), ())
    assert lists.fading(2.0) == pytest.approx(math.exp(-9 / 2))
