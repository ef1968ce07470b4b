"""The feed block: refuses what adds data while Redis, a disk or memory is nearly full.

Deletes, reads, promotions and rollbacks always pass: what is left is for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from nearline.errors import FeedBlocked
from retrieval.redis_client.connection import REDIS_FAILURES, Redis
from retrieval.redis_client.servers import read_info
from retrieval.snapshots.memory import MemoryLimit, memory_limits

REDIS, DISK, MEMORY = "redis", "disk", "memory"
RESOURCES: Final = frozenset({REDIS, DISK, MEMORY})
# More free bytes than this are enough, however large the resource is.
_ENOUGH_BYTES: Final = {REDIS: 1 << 30, DISK: 4 << 30, MEMORY: 1 << 30}
# Once blocked, this many times the free bytes are needed: near a limit the block must not flap.
REOPEN: Final = 1.25
_EVERY_S = 1.0
_REDIS_TIMEOUT_S = 1.0

_log = logging.getLogger(__name__)
_used_share = Gauge(
    "nearline_feed_block_used_share",
    "Used share of a resource: redis, disk or memory.",
    ("resource",),
)
_total_bytes = Gauge(
    "nearline_feed_block_total_bytes",
    "Size of a resource: redis (maxmemory), disk or memory.",
    ("resource",),
)
_blocked = Gauge(
    "nearline_feed_block_blocked",
    "1 while so little of a resource is free that nothing may be added.",
    ("resource",),
)
_refusals = Counter(
    "nearline_feed_block_refusals_total",
    "Requests refused because so little of a resource was free.",
    ("resource",),
)


class Usage(NamedTuple):
    """Free and total bytes of a resource. place: Its name in errors."""

    place: str
    free: int
    total: int


class ResourceState(NamedTuple):
    """State of a resource, as in WatchedResource of admin.proto."""

    name: str
    free_bytes: int
    total_bytes: int
    needed_bytes: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedResource:
    """A resource, and how full it may be.

    name: One of RESOURCES.
    limit: Share that may be used, 0..1; 1 disables the limit.
    remedy: How to free some of it.
    read: Returns its usage, or several of which the tightest counts; empty if unknown. Raises an
        OSError or an error of Redis if it does not answer.
    """

    name: str
    limit: float
    remedy: str
    read: Callable[[], Awaitable[Sequence[Usage]]]

    def judge(self, usages: Sequence[Usage], *, blocked: bool) -> ResourceState | None:
        """Returns the state of the tightest of several usages; None if there is none.

        blocked: Whether it was nearly full before; then more must be free.
        """
        states = [self._state(one, REOPEN if blocked else 1.0) for one in usages if one.total > 0]
        return min(states, key=lambda one: one.free_bytes - one.needed_bytes, default=None)

    def _state(self, usage: Usage, factor: float) -> ResourceState:
        share = round((1 - self.limit) * usage.total)
        needed = round(factor * min(share, _ENOUGH_BYTES[self.name]))
        problem = ""
        if usage.free < needed:
            problem = (
                f"{usage.place} has {_mib(usage.free)} of {_mib(usage.total)} free, and "
                f"{_mib(needed)} must be (--feed-block-{self.name} {self.limit:g}): {self.remedy}"
            )
        return ResourceState(self.name, usage.free, usage.total, needed, problem)


class FeedBlock:
    """Measures resources once a second, and refuses requests while one is nearly full.

    What has been added since counts as used. If a resource cannot be measured, its last known state
    holds.

    Args:
        resources: What to measure.
    """

    def __init__(self, resources: Sequence[WatchedResource]) -> None:
        self._resources = resources
        self._states: dict[str, ResourceState] = {}
        self._problems: dict[str, str] = {}
        self._usages: dict[str, Sequence[Usage]] = {}
        # Bytes by resource: of requests that no measurement has seen, and of those that have ended.
        self._unseen = Tally[str]()
        self._ended = Tally[str]()
        self._task: asyncio.Task[None] | None = None

    @property
    def states(self) -> Sequence[ResourceState]:
        """The resources that could be measured."""
        return list(self._states.values())

    def check(self, what: str, only: Collection[str] = RESOURCES) -> None:
        """Refuses a request that adds data while a resource is nearly full; costs next to nothing.

        Args:
            what: What is refused, as a plural noun.
            only: Resources that the request needs.
        Raises: FeedBlocked: names the resource, what is free, the limit and the remedy.
        """
        if not self._problems:
            return
        problems = {name: one for name, one in self._problems.items() if name in only}
        if problems:
            for name in problems:
                _refusals.labels(name).inc()
            raise _refusal(what, ". ".join(problems.values()))

    @contextlib.contextmanager
    def adding(self, what: str, size: int, only: Collection[str] = RESOURCES) -> Iterator[None]:
        """Checks a request again, and counts what it adds until a measurement has seen it.

        Args:
            what: What is refused, as a plural noun.
            size: About how many bytes it adds to each resource while the context is open; a request
                that adds none always passes.
            only: Resources that the request needs.
        Raises: FeedBlocked: as `check` does, or because it would leave too little.
        """
        if not size:
            yield
            return
        self.check(what, only)
        for resource in self._resources:
            name = resource.name
            more = self._unseen[name] + size
            if name in only and name in self._usages:
                usages = [one._replace(free=max(0, one.free - more)) for one in self._usages[name]]
                state = resource.judge(usages, blocked=False)
                if state is not None and state.problem:
                    _refusals.labels(name).inc()
                    raise _refusal(what, f"with the {_mib(more)} being added, {state.problem}")
        for name in only:
            self._unseen[name] += size
        try:
            yield
        finally:
            for name in only:
                self._ended[name] += size

    async def measure(self) -> None:
        """Measures every resource once."""
        for resource in self._resources:
            # Without an answer, the last known state holds.
            with contextlib.suppress(*REDIS_FAILURES):
                # Those that run may be measured before their bytes arrive.
                seen = self._ended[resource.name]
                usages = await resource.read()
                blocked = resource.name in self._problems
                state = resource.judge(usages, blocked=blocked)
                self._unseen[resource.name] -= seen
                self._ended[resource.name] -= seen
                if state is not None:
                    self._usages[resource.name] = usages
                    self._take(state, blocked=blocked)

    async def start(self) -> None:
        """Measures once, and from then on every second."""
        await self.measure()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops measuring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.measure()
            except Exception:
                _log.exception("resources not measured")

    def _take(self, state: ResourceState, *, blocked: bool) -> None:
        self._states[state.name] = state
        _used_share.labels(state.name).set(1 - state.free_bytes / state.total_bytes)
        _total_bytes.labels(state.name).set(state.total_bytes)
        _blocked.labels(state.name).set(bool(state.problem))
        if state.problem:
            self._problems[state.name] = state.problem
            if not blocked:
                _log.warning("nothing may be added", extra={"reason": state.problem})
        elif blocked:
            del self._problems[state.name]
            _log.info("items may be added again", extra={"resource": state.name})


def redis_resource(client: Redis, limit: float, *others: Redis) -> WatchedResource:
    """Returns the memory of a Redis; that of its machine if it has no maxmemory.

    Of a cluster, that of each primary.

    Args:
        client: The Redis.
        limit: Share that may be used.
        others: Other servers that are watched as one resource with it.
    """

    async def read() -> Sequence[Usage]:
        async with asyncio.timeout(_REDIS_TIMEOUT_S):
            infos = [await read_info(one, "memory") for one in (client, *others)]
        usages = []
        for name, info in (found for one in infos for found in one.items()):
            total = int(info.get("maxmemory") or info.get("total_system_memory") or 0)
            # What Redis compares with maxmemory: without buffers for replicas and the file on disk.
            counted = int(info.get("used_memory", 0)) - int(
                info.get("mem_not_counted_for_evict", 0)
            )
            usages.append(Usage(f"Redis {name}".rstrip(), max(0, total - counted), total))
        return usages

    return WatchedResource(
        name=REDIS,
        limit=limit,
        remedy="compact (nearline compact), delete dead letters (nearline letters delete), or give "
        "it more memory (maxmemory)",
        read=read,
    )


def disk_resource(folder: Path, limit: float) -> WatchedResource:
    """Returns the disk of a folder."""

    def read() -> Sequence[Usage]:
        used = shutil.disk_usage(folder)
        # Without the blocks that are reserved for the superuser.
        return [Usage(f"the disk of {folder}", used.free, used.used + used.free)]

    return WatchedResource(
        name=DISK,
        limit=limit,
        remedy="remove snapshots (nearline snapshots prune) or other files, or enlarge it",
        read=lambda: asyncio.to_thread(read),
    )


def memory_resource(
    limit: float, shard_servers: Callable[[], Mapping[str, Sequence[MemoryLimit]]] = dict
) -> WatchedResource:
    """Returns the memory of this machine and its control groups, and that of shard servers.

    Args:
        limit: Share that may be used.
        shard_servers: Returns the memory of the shard servers by address. Optional.
    """

    async def read() -> Sequence[Usage]:
        mine = await asyncio.to_thread(memory_limits)
        places = {"the router": mine} | {
            f"shard server {address}": limits for address, limits in shard_servers().items()
        }
        return [
            Usage(f"the memory of {place}", *one)
            for place, limits in places.items()
            for one in limits
        ]

    return WatchedResource(
        name=MEMORY,
        limit=limit,
        remedy="compact (nearline compact), spread the shards over more machines, or add memory",
        read=read,
    )


def _refusal(what: str, why: str) -> FeedBlocked:
    # Without a time to retry: waiting does not help unless somebody acts.
    return FeedBlocked(f"{what} are refused, deletes are not: {why}")


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
