"""Lifetimes of cached lists."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nearline.errors import InvalidRequest, SettingsError
from retrieval.cache.cached_list import CachedList, CacheLifetimes, should_refresh_early
from tests.retrieval.cache.sample_lists import mark


def ages(draw: float = 0.5, ttl_s: float = 100.0, stale_s: float = 1_000.0) -> CacheLifetimes:
    return CacheLifetimes(ttl_s=ttl_s, stale_s=stale_s, negative_s=7.0, random=lambda: draw)


@pytest.mark.parametrize("draw, fresh_s", [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
def test_lists_computed_together_do_not_become_stale_together(draw: float, fresh_s: float) -> None:
    entry = ages(draw).entry(CachedList((), (), 5, 0.0), now_us=99)
    assert entry.fresh_until_us == 5 + fresh_s * 1e6
    assert (entry.computed_us, entry.gone_us) == (5, 5 + 1_000_000_000)
    assert entry.serves(entry.gone_us - 1, None) and not entry.serves(entry.gone_us, None)


def test_a_list_is_never_fresh_after_it_expired() -> None:
    entry = ages(1.0, stale_s=100.0).entry(CachedList((), (), 0, 0.0), now_us=0)
    assert entry.fresh_until_us == entry.gone_us == 100_000_000


def test_a_list_expires_with_its_first_item() -> None:
    hot = CachedList((), (), 5, 0.0, expires_us=7)
    entry = ages().entry(hot, now_us=5)
    assert entry.fresh_until_us == entry.gone_us == 7
    assert entry.serves(6, None) and not entry.serves(7, None)
    late = ages().entry(CachedList((), (), 0, 0.0, expires_us=10**15), now_us=0)
    assert late.gone_us == 1_000_000_000


def test_a_missing_item_is_remembered_from_now_on() -> None:
    entry = ages().entry(None, now_us=3)
    assert (entry.fresh_until_us, entry.gone_us) == (7_000_003, 7_000_003)


def test_a_request_for_newer_changes_does_not_get_an_older_list() -> None:
    entry = ages().entry(CachedList((), (), 0, 0.0, mark(5).encode()), now_us=0)
    assert entry.serves(0, mark(5)) and entry.serves(0, None)
    assert not entry.serves(0, mark(5).advanced({63: 6}))
    # What another log has, or a list that does not say, cannot be compared.
    assert not entry.serves(0, mark(5, "other"))
    assert not ages().entry(CachedList((), (), 0, 0.0), now_us=0).serves(0, mark(0))
    assert not ages().entry(None, now_us=0).serves(0, mark(0))


@pytest.mark.parametrize("left_s", [0.0, 0.05, 0.2, 0.6])
def test_early_refreshes_follow_the_formula(left_s: float, rng: np.random.Generator) -> None:
    cost_s, draws = 0.2, 20_000
    chances = 1.0 - rng.random(draws)
    expiry_us = 10**15
    now_us = expiry_us - round(left_s * 1e6)
    early = sum(should_refresh_early(now_us, expiry_us, cost_s, chance) for chance in chances)
    # -ln of a uniform number is exponential: it exceeds left / cost with chance exp(-left / cost).
    wanted = math.exp(-left_s / cost_s)
    spread = math.sqrt(wanted * (1 - wanted) / draws)
    assert abs(early / draws - wanted) <= 4 * spread


def test_a_list_without_cost_is_not_refreshed_early() -> None:
    assert not should_refresh_early(99, 100, 0.0, 1e-300)
    assert should_refresh_early(100, 100, 0.0, 1.0)


def test_contradictory_lifetimes_and_foreign_watermarks_are_rejected() -> None:
    with pytest.raises(SettingsError, match="0 < ttl_s <= stale_s"):
        ages(ttl_s=2.0, stale_s=1.0)
    with pytest.raises(InvalidRequest, match="watermark of a cached list"):
        ages().entry(CachedList((), (), 0, 0.0, b"no watermark"), now_us=0)
