"""The cache that is bounded by the memory of its values."""

from __future__ import annotations

from retrieval.cache.byte_cache import ByteCache


def test_what_was_read_last_stays_and_the_sizes_add_up() -> None:
    cache: ByteCache[str, int] = ByteCache(1_000, 60.0, lambda: 0.0)
    for number in range(100):
        cache.put(f"k{number}", number, 10)
    assert (len(cache), cache.size, cache.get("k0")) == (100, 1_000, 0)
    # One that takes the place of another of its name needs its room only.
    cache.put("k0", -1, 10)
    assert (len(cache), cache.size, cache.get("k1")) == (100, 1_000, 1)
    cache.put("new", 7, 5)
    assert (len(cache), cache.size) == (100, 995)
    assert [cache.get(one) for one in ("k2", "k0", "k1", "k3", "new")] == [None, -1, 1, 3, 7]
    cache.put("k1", 0, 11)
    assert (cache.get("k1"), len(cache), cache.size) == (None, 99, 985)


def test_a_value_is_kept_for_its_time_which_reading_does_not_renew() -> None:
    now_s = 0.0
    cache: ByteCache[str, int] = ByteCache(1_000, 60.0, lambda: now_s)
    cache.put("a", 1, 10)
    now_s = 59.0
    assert cache.get("a") == 1
    now_s = 60.0
    assert (cache.get("a"), len(cache), cache.size) == (None, 0, 0)
