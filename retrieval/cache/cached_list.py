"""Cached lists, their keys, and how long they are fresh."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from google.protobuf.message import Message

from nearline.errors import SettingsError, SnapshotMismatch
from retrieval.protocols.watermark import Watermark, decode_watermark

_JITTER = 0.1
# How long a list that new interactions may change is fresh, and how long it is served.
_LIVE_S, _LIVE_STALE_S = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class CachedList:
    """A list that everyone shares.

    ids, messages: Ids and messages of its items, best first. Messages are encoded as
    `wire.recommendation_to_bytes` does, since most are sent unchanged. computed_us: When its
    computation started, microseconds since 1970. cost_s: Duration of the computation. watermark:
    The changes of items that the list reflects, see `protocols.watermark`; empty if unknown.
    expires_us: When the first of its items expires; 0 if none does. from_content: Whether its items
    were chosen by the similarity of their vectors, not by behaviour. is_live: Whether new
    interactions may change it. stale: Why it may lack later
    changes; empty if it does not. Other processes are not told.
    """

    # Two tuples instead of a tuple of pairs: with the pairs of a few thousand lists, the garbage
    # collector paused the event loop for 50 ms at a time.
    ids: tuple[str, ...]
    messages: tuple[bytes, ...]
    computed_us: int
    cost_s: float
    watermark: bytes = b""
    expires_us: int = 0
    from_content: bool = False
    is_live: bool = False
    stale: str = ""

    def without(self, deleted: Collection[str]) -> CachedList:
        """Returns the list without some items."""
        kept = [at for at, one in enumerate(self.ids) if one not in deleted]
        if len(kept) == len(self.ids):
            return self
        return replace(
            self,
            ids=tuple(self.ids[at] for at in kept),
            messages=tuple(self.messages[at] for at in kept),
        )


class ListKey(NamedTuple):
    """Everything that a list depends on, so that no entry needs to be invalidated.

    payload: Names of the fields that the surface shows. of: Name of the list, such as "item:42" or
    "popular".
    """

    collection: str
    snapshot_id: str
    policy_digest: str
    filter_digest: str
    payload: str
    of: str


class CacheLevel(Enum):
    """Where a list came from; STALE: from any level, but no longer fresh."""

    NEAR = "near"
    REDIS = "redis"
    LIVE = "live"
    STALE = "stale"


def message_digest(message: Message) -> str:
    """Returns 24 hex digits of a message, the same in every process."""
    data = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, digest_size=12).hexdigest()


# Computes a list; returns None if the item does not exist. Several requests may wait for the
# result, so the computation must not depend on a single request or its deadline.
ComputeList: TypeAlias = Callable[[], Awaitable[CachedList | None]]


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
        stale_s = self.stale_s
        if cached.is_live:
            fresh_s, stale_s = min(fresh_s, _LIVE_S), min(stale_s, _LIVE_STALE_S)
        gone_us = cached.computed_us + int(stale_s * 1e6)
        # After that time, the entry is replaced by a list without the expired item.
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
