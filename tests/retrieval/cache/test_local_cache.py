"""The cache of one process: entries that are kept warm, and those requested often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retrieval.cache.cached_list import CachedList, CacheEntry, CacheLifetimes
from retrieval.cache.tiered_cache import LocalCache
from tests.retrieval.cache.sample_lists import KEY, Clock

LIFETIMES = CacheLifetimes(ttl_s=1, stale_s=1, negative_s=1, random=lambda: 0.5)
OTHER = KEY._replace(of="item:7")


def entry(computed_us: int = 5) -> CacheEntry:
    return LIFETIMES.entry(CachedList((), (), computed_us, 0.0), Clock()())


@pytest.fixture(name="cache")
def give_cache() -> Iterator[LocalCache]:
    """Returns a cache of ten entries, and one that is kept warm."""
    cache = LocalCache(10, 60)
    yield cache
    cache.close()


def test_a_warm_entry_makes_room_for_a_newer_one(cache: LocalCache) -> None:
    cache.keep_warm(KEY, entry())
    cache.keep_warm(OTHER, entry())
    assert cache.get(KEY) is None
    assert cache.get(OTHER) is not None


def test_a_requested_warm_entry_stays_when_newer_ones_take_its_place(cache: LocalCache) -> None:
    kept = entry()
    cache.keep_warm(KEY, kept)
    assert cache.get(KEY) is kept
    cache.keep_warm(OTHER, entry())
    assert cache.get(KEY) is kept


@pytest.mark.parametrize(("computed_us", "replaced"), [(4, False), (5, True), (6, True)])
def test_a_warm_entry_is_replaced_unless_the_other_is_older(
    cache: LocalCache, computed_us: int, replaced: bool
) -> None:
    kept, other = entry(5), entry(computed_us)
    cache.keep_warm(KEY, kept)
    cache.put(KEY, other)
    assert cache.get(KEY) is (other if replaced else kept)


def test_a_full_cache_keeps_the_newest_of_a_warm_entry() -> None:
    cache = LocalCache(100, 60)
    for number in range(100):
        for _ in range(5):
            cache.put(KEY._replace(of=f"item:often:{number}"), entry())
    newer = entry(6)
    cache.keep_warm(KEY, entry(5))
    cache.put(KEY, newer)
    for number in range(200):
        cache.put(KEY._replace(of=f"item:once:{number}"), entry())
    assert cache.get(KEY) is newer
    cache.close()
