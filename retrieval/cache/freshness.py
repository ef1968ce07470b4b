"""Lifetimes of cached lists: fresh, then stale, then expired; and early refreshes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nearline.errors import SettingsError, SnapshotMismatch
from retrieval.cache.cached_list import CachedList
from retrieval.protocols.watermark import Watermark, decode_watermark

_JITTER = 0.1


class CacheEntry(NamedTuple):
    """A cached list with its lifetime; times are microseconds since 1970.

    cached: None if the item does not exist. computed_us: Orders two entries of a list.
    fresh_until_us: When it becomes stale. gone_us: When it is no longer served.
    """

    cached: CachedList | None
    watermark: Watermark | None
    computed_us: int
    fresh_until_us: int
    gone_us: int

    def serves(self, now_us: int, least: Watermark | None) -> bool:
        """Returns whether the entry may answer a request that needs the changes up to `least`."""
        if now_us >= self.gone_us:
            return False
        if least is None:
            return True
        try:
            return self.watermark is not None and self.watermark.covers(least)
        except SnapshotMismatch:
            return False


def should_refresh_early(now_us: int, expiry_us: int, cost_s: float, chance: float) -> bool:
    """Returns whether the reader of a fresh list refreshes it early.

    The probability grows with the cost of the list and as its end approaches, so that one of many
    readers refreshes it before all find it stale. This is XFetch with beta 1, now - cost ln(chance)
    >= expiry: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
    VLDB 2015.

    Args:
        chance: Uniform in (0, 1].
    """
    return now_us - cost_s * 1e6 * math.log(chance) >= expiry_us


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLifetimes:
    """Lifetimes of cache entries, in seconds.

    ttl_s: How long a list is fresh, plus or minus a tenth, so that lists that were computed
        together do not become stale together. stale_s: How long a list is served. Both count from
        its computation. negative_s: How long a missing item is remembered.
    random: Uniform in [0, 1).
    Raises: SettingsError: the times contradict each other.
    """

    ttl_s: float
    stale_s: float
    negative_s: float
    random: Callable[[], float]

    def __post_init__(self) -> None:
        if not (0 < self.ttl_s <= self.stale_s and self.negative_s > 0):
            raise SettingsError(
                f"cached lists cannot be fresh for {self.ttl_s:g} s and served for "
                f"{self.stale_s:g} s, with missing items remembered for {self.negative_s:g} s; set "
                "0 < ttl_s <= stale_s and 0 < negative_s"
            )

    def entry(self, cached: CachedList | None, now_us: int) -> CacheEntry:
        """Returns the entry of a computed list.

        Args:
            now_us: When an item was found to be missing; for a list, its `computed_us` counts
                instead.
        Raises: InvalidRequest: the watermark is malformed.
        """
        if cached is None:
            gone_us = now_us + int(self.negative_s * 1e6)
            return CacheEntry(None, None, now_us, gone_us, gone_us)
        fresh_s = self.ttl_s * (1 + _JITTER * (2 * self.random() - 1))
        gone_us = cached.computed_us + int(self.stale_s * 1e6)
        # It is then replaced by a list without the expired item.
        if cached.expires_us:
            gone_us = min(gone_us, cached.expires_us)
        fresh_until_us = min(cached.computed_us + int(fresh_s * 1e6), gone_us)
        watermark = decode_watermark(cached.watermark, "watermark of a cached list")
        return CacheEntry(cached, watermark, cached.computed_us, fresh_until_us, gone_us)

    def refreshes_early(self, entry: CacheEntry, now_us: int) -> bool:
        """Draws whether the reader of a fresh entry refreshes it now."""
        return entry.cached is not None and should_refresh_early(
            now_us, entry.fresh_until_us, entry.cached.cost_s, 1.0 - self.random()
        )
