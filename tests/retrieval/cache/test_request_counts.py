"""Request counts of lists, in bounded memory."""

from __future__ import annotations

from collections import Counter

import numpy as np

from retrieval.cache.tiered_cache import RequestCounts

MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000


def test_the_most_requested_come_first_and_equal_counts_by_name(rng: np.random.Generator) -> None:
    asked, counts = RequestCounts(), Counter[str]()
    for one in rng.zipf(1.5, 3_000) % 50:
        asked.add("a", f"item:{one}", START_US)
        counts[f"item:{one}"] += 1
    asked.add("b", "popular", START_US)
    wanted = sorted(counts, key=lambda name: (-counts[name], name))
    assert asked.most("a", 10) == wanted[:10]
    assert asked.most("a", 1_000) == wanted
    assert (asked.most("b", 10), asked.most("c", 10)) == (["popular"], [])


def test_recent_requests_count_more() -> None:
    asked = RequestCounts()
    for _ in range(8):
        asked.add("a", "old", START_US)
    for _ in range(3):
        asked.add("a", "new", START_US + MINUTE_US - 1)
    assert asked.most("a", 2) == ["old", "new"]
    # After two minutes 8 count 2; what counts nothing any more is forgotten.
    for _ in range(3):
        asked.add("a", "newest", START_US + 2 * MINUTE_US)
    assert asked.most("a", 3) == ["newest", "old"]
    asked.add("a", "newest", START_US + 500 * MINUTE_US)
    assert asked.most("a", 3) == ["newest"]


def test_a_scan_does_not_displace_popular_lists() -> None:
    asked = RequestCounts(limit=100)
    for one in range(20):
        for _ in range(3):
            asked.add("a", f"popular {one:02}", START_US)
    for one in range(10_000):
        asked.add("a", f"scanned {one}", START_US)
    assert len(asked.most("a", 1_000)) <= 100
    assert asked.most("a", 20) == [f"popular {one:02}" for one in range(20)]


def test_as_many_lists_as_the_limit_are_counted() -> None:
    asked = RequestCounts(limit=10)
    for one in range(10):
        asked.add("a", f"list {one}", START_US)
    assert len(asked.most("a", 1_000)) == 10
    asked.add("a", "one more", START_US)
    assert len(asked.most("a", 1_000)) == 5
