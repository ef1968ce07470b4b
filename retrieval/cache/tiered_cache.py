"""Gives hot lists: from this process, from Redis, or computed, in this order."""

from __future__ import annotations

import asyncio
import logging
import random as chances
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar

from prometheus_client import Counter

from nearline.errors import NearlineError
from retrieval.cache.cached_list import CachedList, CacheLevel, ComputeList, ListKey
from retrieval.cache.codec import StoredList, pack
from retrieval.cache.freshness import CacheEntry, CacheLifetimes
from retrieval.cache.local_cache import LocalCache
from retrieval.cache.redis_cache import RedisCache
from retrieval.cache.request_counts import RequestCounts
from retrieval.cache.single_flight import SingleFlight
from retrieval.protocols import metrics
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.connection import Redis

_Wanted: TypeAlias = tuple[ListKey, Watermark | None]
_Found: TypeAlias = tuple[CacheEntry, CacheLevel]
_Given: TypeAlias = tuple[CachedList | None, CacheLevel]
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def _now_us() -> int:
    return time.time_ns() // 1_000


class TieredCache:
    """A cache of shared lists, for one event loop.

        fresh -> stale (served while it is refreshed in the background) -> gone (computed again)

    However many ask at once, a list is computed once here; and where another router is at it, what
    there is stays. Without Redis, or while it is away, each router computes for itself.

    Args:
        client: Redis, which stays its owner's; None: there is none.
        capacity: Most lists kept in this process; of those that are got ready before anybody asks,
            a tenth as many more.
        ttl_s: A list is fresh so long, give or take a tenth.
        stale_s: A list is served so long, counted from its computation, >= ttl_s.
        negative_s: How long it is remembered that there is no such item.
        redis_timeout_s: Longest wait for Redis. Computing a list takes about as long: what does not
            answer at once is no help.
        clock: Microseconds since 1970.
        random: Uniform in [0, 1).
    Raises: SettingsError: times that do not fit each other.
    """

    def __init__(
        self,
        client: Redis | None,
        *,
        capacity: int = 10_000,
        ttl_s: float = 600,
        stale_s: float = 3_600,
        negative_s: float = 10,
        redis_timeout_s: float = 0.05,
        clock: Callable[[], int] = _now_us,
        random: Callable[[], float] = chances.random,
    ) -> None:
        self._ages = CacheLifetimes(
            ttl_s=ttl_s, stale_s=stale_s, negative_s=negative_s, random=random
        )
        self._clock = clock
        self._near = LocalCache(capacity, max(stale_s, negative_s, 1.0))
        self._shared = RedisCache(client, redis_timeout_s)
        self._asked = RequestCounts()
        # By what is asked for: one who wants newer changes does not wait for one who does not.
        self._flights: SingleFlight[_Wanted, _Found] = SingleFlight(clock)
        self._writes: set[asyncio.Task[None]] = set()
        self._reads: dict[tuple[str, CacheLevel], Counter] = {}

    def __len__(self) -> int:
        """Number of lists kept in this process, with those that there are none of."""
        return len(self._near)

    async def get(
        self, key: ListKey, compute: ComputeList, least: Watermark | None = None
    ) -> _Given:
        """Returns a list, and where it came from.

        Args:
            compute: Makes it where it is nowhere to be had, and to refresh it; see `ComputeList`.
            least: Only one that has the changes up to here; one that is computed is taken to have
                them, so `compute` has to ask for them. None: any.
        Returns: None for the list: there is no such item.
        Raises: Whatever `compute` raises, where there is nothing else to give; NotReady: closed.
        """
        found = self.near(key, compute, least)
        return found or self._given(key, compute, *await self._filled(key, compute, least))

    async def newest(
        self,
        key: ListKey,
        compute: Callable[[Watermark | None], ComputeList],
        least: Watermark | None,
        read: Callable[[CachedList | None, CacheLevel], tuple[_T, Watermark | None]],
    ) -> _T:
        """Returns a list as it is read now: one that is too old then is asked for again.

        Args:
            compute: Gives what makes it with the changes up to a state.
            least: As in `get`.
            read: Applies to a list what was changed since; gives what is made of it, and the state
                that it should have, None: it is as good as new.
        Raises: as `get`.
        """
        while True:
            hot, level = await self.get(key, compute(least), least)
            made, newer = read(hot, level)
            # What is computed just now may be changed again; it is not worth another try.
            if newer is None or level is CacheLevel.LIVE:
                return made
            least = newer

    def near(
        self, key: ListKey, compute: ComputeList, least: Watermark | None = None
    ) -> _Given | None:
        """Returns what `get` would give of this process at once; None: that would take longer."""
        now_us = self._clock()
        self._asked.add(key.collection, key.of, now_us)
        entry = self._near.get(key)
        if entry is None or not entry.serves(now_us, least):
            return None
        return self._given(key, compute, entry, CacheLevel.NEAR)

    def _given(
        self, key: ListKey, compute: ComputeList, entry: CacheEntry, level: CacheLevel
    ) -> _Given:
        """Has a list refreshed in the background where it is time, and counts the read."""
        if level is not CacheLevel.LIVE:
            now_us = self._clock()
            if now_us >= entry.fresh_until_us:
                level = CacheLevel.STALE
                self._refresh(key, compute, entry)
            elif self._ages.refreshed_early(entry, now_us) and self._refresh(key, compute, entry):
                metrics.hot_early_refreshes.labels(key.collection).inc()
        self._count(key.collection, level)
        return entry.hot, level

    async def prewarm(self, wanted: Iterable[tuple[ListKey, ComputeList]], at_once: int = 4) -> int:
        """Gets lists ready that will be asked for, such as the most popular of a new snapshot.

        Returns: How many are ready; the others could not be computed.
        """
        waiting = iter(wanted)
        ready = 0

        async def work() -> None:
            nonlocal ready
            for key, compute in waiting:
                entry = self._near.get(key)
                if entry is None or not entry.serves(self._clock(), None):
                    try:
                        entry, _ = await self._filled(key, compute, None)
                    except Exception as error:
                        _say(key, error)
                        continue
                self._near.keep_warm(key, entry)
                ready += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        return ready

    def popular(self, collection: str, n: int) -> list[str]:
        """Returns what lists were asked for most lately (`ListKey.of`), most asked first."""
        return self._asked.most(collection, n)

    async def close(self) -> None:
        """Ends what is under way, after what is being written to Redis."""
        await self._flights.close()
        if self._writes:
            await asyncio.wait(self._writes)
        self._near.close()

    async def _filled(self, key: ListKey, compute: ComputeList, least: Watermark | None) -> _Found:
        return await self._flights.join((key, least), lambda: self._fill(key, compute, least))

    async def _fill(self, key: ListKey, compute: ComputeList, least: Watermark | None) -> _Found:
        entry = await self._read(key)
        if entry is not None and entry.serves(self._clock(), least):
            self._near.put(key, entry)
            return entry, CacheLevel.REDIS
        # Who has none does not ask whether others are at it, nor waits for them.
        return await self._computed(key, compute, locked=False), CacheLevel.LIVE

    def _refresh(self, key: ListKey, compute: ComputeList, entry: CacheEntry) -> bool:
        """Starts to refresh a list; False: that is under way, or has just failed."""
        return self._flights.start((key, None), lambda: self._refreshed(key, compute, entry))

    async def _refreshed(self, key: ListKey, compute: ComputeList, known: CacheEntry) -> _Found:
        mine = await self._shared.lock(key)
        entry = await self._read(key)
        if entry is not None and entry.computed_us > known.computed_us:
            self._near.put(key, entry)
            if mine:
                await self._shared.release(key)
            return entry, CacheLevel.REDIS
        if not mine and known.serves(self._clock(), None):
            self._flights.rest((key, None))
            return known, CacheLevel.STALE
        try:
            return await self._computed(key, compute, locked=mine), CacheLevel.LIVE
        except Exception as error:
            if not known.serves(self._clock(), None):
                raise
            _say(key, error)
            self._flights.rest((key, None), error)
            return known, CacheLevel.STALE

    async def _read(self, key: ListKey) -> CacheEntry | None:
        found = await self._shared.read(key)
        return None if found is None else self._ages.entry(found.hot, found.computed_us)

    async def _computed(self, key: ListKey, compute: ComputeList, *, locked: bool) -> CacheEntry:
        try:
            hot = await compute()
            entry = self._ages.entry(hot, self._clock())
            data = pack(StoredList(hot, entry.computed_us))
        except Exception:
            metrics.hot_computations.labels(key.collection, "failed").inc()
            if locked:
                self._in_background(self._shared.release(key))
            raise
        outcome = "absent" if hot is None else "made"
        metrics.hot_computations.labels(key.collection, outcome).inc()
        self._near.put(key, entry)
        keep_s = (entry.gone_us - self._clock()) / 1e6
        self._in_background(self._shared.write(key, data, keep_s, locked=locked))
        return entry

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    def _count(self, collection: str, level: CacheLevel) -> None:
        counter = self._reads.get((collection, level))
        if counter is None:
            counter = metrics.hot_reads.labels(collection, level.value)
            self._reads[collection, level] = counter
        counter.inc()


def _say(key: ListKey, error: Exception) -> None:
    """Logs why a list could not be computed that nobody waits for; what it stands for goes on."""
    about = {"collection": key.collection, "of": key.of, "reason": str(error)}
    if isinstance(error, NearlineError):
        _log.warning("a hot list could not be computed", extra=about)
    else:
        _log.error("a hot list could not be computed", extra=about, exc_info=error)
