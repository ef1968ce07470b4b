"""Reads shared lists from this process, else from Redis, else by computing them."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random as chances
import time
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Generic, TypeAlias, TypeVar

from prometheus_client import Counter
from theine import Cache

from nearline.errors import NearlineError, NotReady
from nearline.times import MINUTE_US
from retrieval.cache.cached_list import (
    CachedList,
    CacheEntry,
    CacheLevel,
    CacheLifetimes,
    ComputeList,
    ListKey,
)
from retrieval.cache.redis_cache import RedisCache, Reserve, StoredList, pack
from retrieval.protocols import metrics
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.connection import Redis

_K = TypeVar("_K")
_V = TypeVar("_V")
_PAUSE_US = 1_000_000
_MAX_PAUSED = 1_000


class SingleFlight(Generic[_K, _V]):
    """Runs at most one task per key at a time.

    Args:
        clock: Microseconds.
        abandons: Whether to cancel a task once no request waits for it.
    """

    def __init__(self, clock: Callable[[], int], *, abandons: bool = False) -> None:
        self._clock = clock
        self._abandons = abandons
        self._tasks: dict[_K, asyncio.Task[_V]] = {}
        # Requests that wait for each task, plus one if it was started in the background.
        self._waiting: dict[asyncio.Task[_V], int] = {}
        # By key, oldest first: when the pause ends, and the error.
        self._paused: dict[_K, tuple[int, Exception | None]] = {}

    async def join(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> _V:
        """Returns the result of the running task of a key, or of a new one.

        The task continues if a waiting request is cancelled, unless it is abandoned.

        Raises: The error of the task, to all waiting requests and for one second after. NotReady:
            this object is closed.
        """
        task = self._tasks.get(key)
        if task is None:
            error = self._pause_error(key)
            if error is not None:
                raise error.with_traceback(None)
            task = self._start(key, make(), waiting=0)
        self._waiting[task] += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if task.cancelled() and not (waiter and waiter.cancelling()):
                raise NotReady(
                    "this service is shutting down; send the request to another one"
                ) from None
            raise
        finally:
            if not task.done():
                self._waiting[task] -= 1
                if self._abandons and not self._waiting[task]:
                    del self._tasks[key]
                    task.cancel()

    def start(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> bool:
        """Starts a task in the background; returns False if one is running or the key is paused."""
        if key in self._tasks:
            return False
        self._pause_error(key)
        if key in self._paused:
            return False
        self._start(key, make(), waiting=1)
        return True

    def pause(self, key: _K, error: Exception | None = None) -> None:
        """Starts no task of a key for a second; meanwhile requests raise the error, if any."""
        self._paused.pop(key, None)
        self._paused[key] = self._clock() + _PAUSE_US, error
        if len(self._paused) > _MAX_PAUSED:
            del self._paused[next(iter(self._paused))]

    async def close(self) -> None:
        """Cancels all tasks; waiting requests raise NotReady."""
        tasks = tuple(self._waiting)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, key: _K, work: Coroutine[Any, Any, _V], *, waiting: int) -> asyncio.Task[_V]:
        task = self._tasks[key] = asyncio.create_task(work)
        self._waiting[task] = waiting
        task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def _finish(self, key: _K, task: asyncio.Task[_V]) -> None:
        del self._waiting[task]
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.pause(key, error)

    def _pause_error(self, key: _K) -> Exception | None:
        """Returns the error because of which a key is paused; drops pauses that are over."""
        now = self._clock()
        while self._paused:
            first = next(iter(self._paused))
            if now < self._paused[first][0]:
                break
            del self._paused[first]
        return self._paused.get(key, (0, None))[1]


class LocalCache:
    """Keeps the lists that are requested often, not those requested last (W-TinyLFU).

    Args:
        capacity: Largest number of entries, plus a tenth of that for entries that are kept warm.
        keep_s: Time after which an entry is dropped, whatever its own lifetime; >= 1.
    """

    def __init__(self, capacity: int, keep_s: float) -> None:
        self._entries: Cache[ListKey, CacheEntry] = Cache(capacity)
        self._keep = timedelta(seconds=keep_s)
        # A full cache does not admit entries that were not requested yet, so they wait here, oldest
        # first.
        self._warm: dict[ListKey, CacheEntry] = {}
        self._max_warm = max(capacity // 10, 1)

    def __len__(self) -> int:
        """Number of entries; those that are kept warm may count twice."""
        return len(self._entries) + len(self._warm)

    def get(self, key: ListKey) -> CacheEntry | None:
        """Returns an entry, or None."""
        entry = self._entries.get(key)[0]
        if entry is None and (entry := self._warm.get(key)) is not None:
            # After enough requests, the cache admits the entry.
            self._entries.set(key, entry, self._keep)
        return entry

    def put(self, key: ListKey, entry: CacheEntry) -> None:
        """Stores an entry, unless a newer one is stored."""
        stored = self.get(key)
        if stored is None or stored.computed_us <= entry.computed_us:
            self._entries.set(key, entry, self._keep)
            if key in self._warm:
                self._warm[key] = entry

    def keep_warm(self, key: ListKey, entry: CacheEntry) -> None:
        """Stores an entry until newer warm ones replace it, whether it is requested or not."""
        self._warm.pop(key, None)
        self._warm[key] = entry
        if len(self._warm) > self._max_warm:
            del self._warm[next(iter(self._warm))]

    def close(self) -> None:
        """Drops all entries and closes the cache."""
        self._warm.clear()
        self._entries.clear()
        self._entries.close()


_FlightKey: TypeAlias = tuple[ListKey, Watermark | None]
_Found: TypeAlias = tuple[CacheEntry, CacheLevel]
_Read: TypeAlias = tuple[CachedList | None, CacheLevel]
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class RequestCounts:
    """Counts requests by collection and list; counts are halved every minute.

    Args:
        limit: Largest number of lists in a collection, >= 2. Beyond it, the half with the fewest
            requests is dropped.
    """

    def __init__(self, limit: int = 4_096) -> None:
        self._limit = limit
        self._counts: dict[str, dict[str, int]] = {}
        self._halved_us = 0

    def add(self, collection: str, of: str, now_us: int) -> None:
        """Counts a request."""
        if now_us >= self._halved_us + MINUTE_US:
            self._halve(now_us)
        counts = self._counts.get(collection)
        if counts is None:
            counts = self._counts[collection] = {}
        counts[of] = counts.get(of, 0) + 1
        if len(counts) > self._limit:
            most = self.most(collection, self._limit // 2)
            self._counts[collection] = {name: counts[name] for name in most}

    def most(self, collection: str, n: int) -> list[str]:
        """Returns the n most requested lists; those with equal counts in alphabetical order."""
        counts = self._counts.get(collection, {})
        return heapq.nsmallest(n, counts, key=lambda name: (-counts[name], name))

    def _halve(self, now_us: int) -> None:
        minutes = (now_us - self._halved_us) // MINUTE_US
        if self._halved_us:
            self._counts = {
                collection: {name: left for name, n in counts.items() if (left := n >> minutes)}
                for collection, counts in self._counts.items()
            }
        self._halved_us = now_us


def _now_us() -> int:
    return time.time_ns() // 1_000


async def _without_limit(size: int, keep_s: float) -> None:
    """Lets a list be stored."""


class TieredCache:
    """A cache of shared lists, for one event loop.

        fresh -> stale (served while it is refreshed in the background) -> gone (computed again)

    Concurrent requests share one computation. While another router refreshes a list, this one
    serves the stale list. Without Redis, or while Redis is unavailable, each router computes its
    own lists.

    Args:
        client: Optional Redis client, which is not closed here.
        capacity: Largest number of lists in this process, plus a tenth for lists computed ahead.
        ttl_s: How long a list is fresh, plus or minus a tenth.
        stale_s: How long a list is served, counted from its computation, >= ttl_s.
        negative_s: How long a missing item is remembered.
        redis_timeout_s: Longest wait for Redis. A longer wait would not help, since computing a
            list takes about as long.
        clock: Returns microseconds since 1970.
        random: Uniform in [0, 1).
        reserve: Called with the bytes and the seconds for which Redis is to keep a list; raises
            FeedBlocked if it may not. Optional.
        abandons: Whether a computation ends once no request waits for it; otherwise, its list is
            cached for later requests.
    Raises: SettingsError: the times contradict each other.
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
        reserve: Reserve = _without_limit,
        abandons: bool = False,
    ) -> None:
        self._lifetimes = CacheLifetimes(
            ttl_s=ttl_s, stale_s=stale_s, negative_s=negative_s, random=random
        )
        self._clock = clock
        self._local = LocalCache(capacity, max(stale_s, negative_s, 1.0))
        self._shared = RedisCache(client, redis_timeout_s, reserve)
        self._requests = RequestCounts()
        # Requests that need newer changes do not wait for a computation without these changes.
        self._flights: SingleFlight[_FlightKey, _Found] = SingleFlight(clock, abandons=abandons)
        self._writes: set[asyncio.Task[None]] = set()
        self._reads: dict[tuple[str, CacheLevel], Counter] = {}

    def __len__(self) -> int:
        """Number of entries in this process, including missing items."""
        return len(self._local)

    async def get(
        self, key: ListKey, compute: ComputeList, least: Watermark | None = None
    ) -> _Read:
        """Returns a list, and where it came from.

        Args:
            compute: Computes the list if it is not cached, and to refresh it; see `ComputeList`.
            least: The changes that the list must reflect; None accepts any list. A computed list is
                assumed to reflect them, so `compute` must ask for them.
        Returns: None instead of a list if the item does not exist.
        Raises: Any error of `compute` if there is no cached list; NotReady: the cache is closed.
        """
        found = self.get_local(key, compute, least)
        return found or self._served(key, compute, *await self._filled(key, compute, least))

    async def get_validated(
        self,
        key: ListKey,
        compute: Callable[[Watermark | None], ComputeList],
        least: Watermark | None,
        validate: Callable[[CachedList | None, CacheLevel], tuple[_T, Watermark | None]],
    ) -> _T:
        """Returns a list after validation; a list that is too old is computed again.

        Args:
            compute: Returns the computation of a list with the changes up to a state.
            least: As in `get`.
            validate: Applies later changes to a list; returns the result, and the changes that a
                new list must reflect, or None if the list is current.
        Raises: as `get`.
        """
        while True:
            cached, level = await self.get(key, compute(least), least)
            result, newer = validate(cached, level)
            # Items may change while a list is computed; that does not justify another attempt.
            if newer is None or level is CacheLevel.LIVE:
                return result
            least = newer

    def get_local(
        self, key: ListKey, compute: ComputeList, least: Watermark | None = None
    ) -> _Read | None:
        """Returns a list that is cached in this process, or None."""
        now_us = self._clock()
        self._requests.add(key.collection, key.of, now_us)
        entry = self._local.get(key)
        if entry is None or not entry.serves(now_us, least):
            return None
        return self._served(key, compute, entry, CacheLevel.NEAR)

    def _served(
        self, key: ListKey, compute: ComputeList, entry: CacheEntry, level: CacheLevel
    ) -> _Read:
        """Refreshes a list in the background if it is time, and counts the read."""
        if level is not CacheLevel.LIVE:
            now_us = self._clock()
            if now_us >= entry.fresh_until_us:
                level = CacheLevel.STALE
                self._refresh(key, compute, entry)
            elif self._lifetimes.refreshes_early(entry, now_us) and self._refresh(
                key, compute, entry
            ):
                metrics.hot_early_refreshes.labels(key.collection).inc()
        self._count(key.collection, level)
        return entry.cached, level

    async def prewarm(self, wanted: Iterable[tuple[ListKey, ComputeList]], at_once: int = 4) -> int:
        """Computes lists ahead, such as the most requested ones of a new snapshot.

        Returns: Number of lists that are ready; the others could not be computed.
        """
        waiting = iter(wanted)
        ready = 0

        async def work() -> None:
            nonlocal ready
            for key, compute in waiting:
                entry = self._local.get(key)
                if entry is None or not entry.serves(self._clock(), None):
                    try:
                        entry, _ = await self._filled(key, compute, None)
                    except Exception as error:
                        _log_failure(key, error)
                        continue
                self._local.keep_warm(key, entry)
                ready += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        return ready

    def most_requested(self, collection: str, n: int) -> list[str]:
        """Returns the names (`ListKey.of`) of the lists with the most recent requests."""
        return self._requests.most(collection, n)

    async def close(self) -> None:
        """Cancels computations, and closes the cache once pending writes to Redis are done."""
        await self._flights.close()
        if self._writes:
            await asyncio.wait(self._writes)
        self._local.close()

    async def _filled(self, key: ListKey, compute: ComputeList, least: Watermark | None) -> _Found:
        return await self._flights.join((key, least), lambda: self._fill(key, compute, least))

    async def _fill(self, key: ListKey, compute: ComputeList, least: Watermark | None) -> _Found:
        entry = await self._read(key)
        if entry is not None and entry.serves(self._clock(), least):
            self._local.put(key, entry)
            return entry, CacheLevel.REDIS
        # Without a usable list, do not wait for a different router that may be computing the list.
        return await self._computed(key, compute, locked=False), CacheLevel.LIVE

    def _refresh(self, key: ListKey, compute: ComputeList, entry: CacheEntry) -> bool:
        """Starts to refresh a list; returns False if a refresh is running or has just failed."""
        return self._flights.start((key, None), lambda: self._refreshed(key, compute, entry))

    async def _refreshed(self, key: ListKey, compute: ComputeList, known: CacheEntry) -> _Found:
        is_locked = await self._shared.lock(key)
        entry = await self._read(key)
        if entry is not None and entry.computed_us > known.computed_us:
            self._local.put(key, entry)
            if is_locked:
                await self._shared.release(key)
            return entry, CacheLevel.REDIS
        if not is_locked and known.serves(self._clock(), None):
            self._flights.pause((key, None))
            return known, CacheLevel.STALE
        try:
            return await self._computed(key, compute, locked=is_locked), CacheLevel.LIVE
        except Exception as error:
            if not known.serves(self._clock(), None):
                raise
            _log_failure(key, error)
            self._flights.pause((key, None), error)
            return known, CacheLevel.STALE

    async def _read(self, key: ListKey) -> CacheEntry | None:
        found = await self._shared.read(key)
        return None if found is None else self._lifetimes.entry(found.cached, found.computed_us)

    async def _computed(self, key: ListKey, compute: ComputeList, *, locked: bool) -> CacheEntry:
        try:
            cached = await compute()
            entry = self._lifetimes.entry(cached, self._clock())
            data = pack(StoredList(cached, entry.computed_us))
        except Exception:
            metrics.hot_computations.labels(key.collection, "failed").inc()
            if locked:
                self._in_background(self._shared.release(key))
            raise
        outcome = "absent" if cached is None else "made"
        metrics.hot_computations.labels(key.collection, outcome).inc()
        self._local.put(key, entry)
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


def _log_failure(key: ListKey, error: Exception) -> None:
    """Logs why a list could not be computed in the background."""
    about = {"collection": key.collection, "of": key.of, "reason": str(error)}
    if isinstance(error, NearlineError):
        _log.warning("a cached list could not be computed", extra=about)
    else:
        _log.error("a cached list could not be computed", extra=about, exc_info=error)
