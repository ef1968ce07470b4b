"""How long a list is good: fresh, then stale, then gone; and when it is refreshed before that."""

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
    """A list in the cache, or that there is none; times are microseconds since 1970.

    hot: None: there is no such item. computed_us: Which of two is newer. fresh_until_us: From then
    on it is stale. gone_us: From then on it is not served.
    """

    hot: CachedList | None
    watermark: Watermark | None
    computed_us: int
    fresh_until_us: int
    gone_us: int

    def serves(self, now_us: int, least: Watermark | None) -> bool:
        """Returns whether it may be served, to one who wants the changes up to `least`."""
        if now_us >= self.gone_us:
            return False
        if least is None:
            return True
        try:
            return self.watermark is not None and self.watermark.covers(least)
        except SnapshotMismatch:
            return False


def should_refresh_early(now_us: int, expiry_us: int, cost_s: float, chance: float) -> bool:
    """Returns whether one who reads a list that is still fresh has it refreshed.

    The dearer the list and the nearer its end, the likelier; so one of many readers does, before
    all find it stale. XFetch with beta 1: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic
    Cache Stampede Prevention", VLDB 2015: now - cost ln(chance) >= expiry.

    Args:
        chance: Uniform in (0, 1].
    """
    return now_us - cost_s * 1e6 * math.log(chance) >= expiry_us


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLifetimes:
    """Times of a cache in seconds.

    ttl_s: A list is fresh so long, give or take a tenth, so that what was computed together does
        not end together. stale_s: Served so long, counted from its computation as well.
    negative_s: How long it is remembered that there is no such item.
    random: Uniform in [0, 1).
    Raises: SettingsError.
    """

    ttl_s: float
    stale_s: float
    negative_s: float
    random: Callable[[], float]

    def __post_init__(self) -> None:
        if not (0 < self.ttl_s <= self.stale_s and self.negative_s > 0):
            raise SettingsError(
                f"hot lists cannot be fresh for {self.ttl_s:g} s and served for {self.stale_s:g} "
                f"s, nor absent ones remembered for {self.negative_s:g} s; give 0 < ttl_s <= "
                "stale_s and 0 < negative_s"
            )

    def entry(self, hot: CachedList | None, now_us: int) -> CacheEntry:
        """Returns the entry of what was computed.

        Args:
            now_us: When it became known that there is no such item; of a list its own time counts.
        Raises: InvalidRequest: its watermark is none.
        """
        if hot is None:
            gone_us = now_us + int(self.negative_s * 1e6)
            return CacheEntry(None, None, now_us, gone_us, gone_us)
        fresh_s = self.ttl_s * (1 + _JITTER * (2 * self.random() - 1))
        gone_us = hot.computed_us + int(self.stale_s * 1e6)
        # One without the item takes its place.
        if hot.expires_us:
            gone_us = min(gone_us, hot.expires_us)
        fresh_until_us = min(hot.computed_us + int(fresh_s * 1e6), gone_us)
        watermark = decode_watermark(hot.watermark, "watermark of a hot list")
        return CacheEntry(hot, watermark, hot.computed_us, fresh_until_us, gone_us)

    def refreshed_early(self, entry: CacheEntry, now_us: int) -> bool:
        """Draws whether a fresh entry is refreshed by one who reads it now."""
        return entry.hot is not None and should_refresh_early(
            now_us, entry.fresh_until_us, entry.hot.cost_s, 1.0 - self.random()
        )
