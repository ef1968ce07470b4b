"""Samples of a running fleet: memory and open files of processes, Redis, change logs."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.fleet.compose import ComposeFleet
from benchmarks.fleet.container_process import RunningContainer
from benchmarks.soak_parts.trend import Trend, fit_trend
from nearline.errors import NearlineError
from nearline.store.snapshot import PARTITIONS
from retrieval.changelog.keys import partition_keys
from retrieval.redis_client.connection import REDIS_FAILURES, connect
from retrieval.redis_client.servers import read_info

_COLLECTION = "default"


class RedisSample(NamedTuple):
    """Memory that Redis uses, and entries of the change log."""

    at_s: float
    bytes: int
    log_entries: int


@dataclass(slots=True)
class Life:
    """Samples of one process from its start to its end; rss_bytes: With its children."""

    container: str
    began_s: float
    times_s: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def rss_trend(self, since_s: float, warm_up_s: float) -> Trend | None:
        """Returns the trend of its memory since then, and after its warm-up; None: too short."""
        begin_s = max(since_s, self.began_s + warm_up_s)
        found = [at for at, one in enumerate(self.times_s) if one >= begin_s]
        return fit_trend([self.times_s[at] for at in found], [self.rss_bytes[at] for at in found])


class Samples:
    """Collects samples of a fleet."""

    def __init__(self, fleet: ComposeFleet) -> None:
        self._fleet = fleet
        self.lives: dict[tuple[str, int], Life] = {}
        self.redis: list[RedisSample] = []
        self.over_limit: dict[str, int] = defaultdict(int)

    async def take(self) -> dict[str, object]:
        """Samples once; returns the figures of all of it."""
        now = time.monotonic()
        rss = {}
        for container in self._fleet.all_containers():
            if found := _measured(container):
                pid, memory, files = found
                life = self.lives.setdefault((container.name, pid), Life(container.name, now))
                life.times_s.append(now)
                life.rss_bytes.append(memory)
                life.files.append(files)
                rss[container.name] = memory >> 20
                if 0 < container.container.memory_bytes < memory:
                    self.over_limit[container.name] += 1
        # It may be away: it is killed, too.
        with contextlib.suppress(NearlineError, KeyError, *REDIS_FAILURES):
            await self._take_redis()
        return {
            "rss_mib": rss,
            "redis_bytes": [one.bytes for one in self.redis[-1:]],
            "log_entries": [one.log_entries for one in self.redis[-1:]],
        }

    async def _take_redis(self) -> None:
        client = connect(f"redis://{self._fleet.address('redis', 6379)}/0")
        try:
            infos = await read_info(client, "memory", "soak")
            used = max(int(one["used_memory"]) for one in infos.values())
            keys = [partition_keys(_COLLECTION, number).log for number in range(PARTITIONS)]
            entries = sum([await client.xlen(key) for key in keys])
            self.redis.append(RedisSample(time.monotonic(), used, entries))
        finally:
            await client.aclose()


def _measured(container: RunningContainer) -> tuple[int, int, int] | None:
    """Returns the id of the first process, and the memory and open files of all of them."""
    pid = container.pid
    if pid is None:
        return None
    try:
        first = psutil.Process(pid)
        # A check is no part of the service.
        family = [first, *first.children(recursive=True)]
        memory = sum(int(one.memory_info().rss) for one in family)
        return pid, memory, len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (psutil.Error, OSError):
        return None
