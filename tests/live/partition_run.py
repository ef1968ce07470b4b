"""Cuts off one part of a cluster after another and prints what callers saw, a JSON line per case.

python -m tests.live.partition_run [--shards N] [--seconds S] [CASE …]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nearline import contract as c
from nearline.errors import NearlineError, NotReady
from nearline.store.snapshot import shard_of
from tests.live.partition_cluster import Cluster, Part, cluster
from tests.network_namespace import go_apart

DEADLINE_S = 1.0
RECOVERY_S, AWAY_S = 30.0, 20.0
CUT = 1
Fault: TypeAlias = Callable[[Part], None]
# What a reply says of itself, if it does, and whether that is so.
Told: TypeAlias = tuple[c.ReplyInfo | None, bool]
CASES: dict[str, tuple[str, Fault]] = {
    "shard half-open": (f"shard {CUT}", Part.halt),
    "shard partitioned": (f"shard {CUT}", Part.partition),
    "redis half-open": ("redis", Part.halt),
    "redis partitioned": ("redis", Part.partition),
    "embedding half-open": ("embedding", Part.halt),
    "embedding partitioned": ("embedding", Part.partition),
}


@dataclass(slots=True)
class Calls:
    """Calls of one kind during a fault.

    last_s: Of the last one. errors: By class. missing: Shards that a reply called missing.
    fallbacks: Why a reply was not all that it might be. false: Replies that lacked something
    without saying so.
    """

    longest_s: float = 0.0
    last_s: float = 0.0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    fallbacks: set[str] = field(default_factory=set)
    false: int = 0

    def to_json(self) -> dict[str, object]:
        """Returns them with lists in place of sets."""
        found = {"missing": sorted(self.missing), "fallbacks": sorted(self.fallbacks)}
        return asdict(self) | found


def by_words(info: c.ReplyInfo) -> bool:
    """Returns whether a reply says that texts were searched by their words alone."""
    return info.served_by.rung == "lexical"


class Caller:
    """Calls the router in every way."""

    def __init__(self, running: Cluster, shards: int) -> None:
        self._client = running.client
        self._ids = {item.id for item in running.items}
        self._shards = shards
        self._query = c.Query(vector=np.ones(4, np.float32))
        # Of a shard that is cut off, and of another.
        known = next(one for one in sorted(self._ids) if self._shard(one) == CUT)
        new = next(f"live{n}" for n in itertools.count() if self._shard(f"live{n}") != CUT)
        self.watermark = b""
        self.kinds: dict[str, Callable[[], Awaitable[Told]]] = {
            "search": partial(self.search, self._query),
            "text search": partial(self.search, c.Query(text="w1 w2")),
            "items": self.items,
            "count": self.count,
            "list": self.list,
            "write": lambda: self.write(c.Item(id=new, text="w3")),
            "write attributes": lambda: self.write(
                c.Item(id=known, attributes={"stock": 1}), only_attributes=True
            ),
            "record": self.record,
        }

    def _within(self, found: set[str], coverage: c.Coverage) -> bool:
        """Returns whether the items that were found are those of the shards that answered."""
        there = {one for one in self._ids if self._shard(one) not in coverage.missing_shards}
        return found & self._ids == there

    def _shard(self, name: str) -> int:
        return shard_of(name, self._shards)

    async def latest(self) -> Told:
        """Searches with every change that was written until now."""
        return await self.search(self._query, self.watermark)

    async def search(self, query: c.Query, min_watermark: bytes = b"") -> Told:
        options = c.SearchOptions(k=1_000, mode=c.SearchMode.DENSE, min_watermark=min_watermark)
        reply = await self._client.search(query, options, timeout_s=DEADLINE_S)
        found = {hit.id for hit in reply.hits}
        whole = by_words(reply.info) or self._within(found, reply.info.coverage)
        return reply.info, whole

    async def items(self) -> Told:
        reply = await self._client.get_items(sorted(self._ids), timeout_s=DEADLINE_S)
        honest = all(one.reason is c.IgnoredReason.SHARD_UNAVAILABLE for one in reply.ignored_ids)
        found = {item.id for item in reply.items}
        return reply.info, honest and self._within(found, reply.info.coverage)

    async def count(self) -> Told:
        reply = await self._client.count_items(timeout_s=DEADLINE_S)
        missing = reply.info.coverage.missing_shards
        least = sum(self._shard(one) not in missing for one in self._ids)
        return reply.info, reply.count >= least

    async def list(self) -> Told:
        options = c.RecommendOptions(n=1_000)
        audience = c.Audience(user_id="u000")
        reply = await self._client.recommend(audience, options, timeout_s=DEADLINE_S)
        return reply.info, True

    async def write(self, item: c.Item, *, only_attributes: bool = False) -> Told:
        reply = await self._client.upsert_items(
            [item], only_attributes=only_attributes, timeout_s=DEADLINE_S
        )
        self.watermark = reply.watermark or self.watermark
        [result] = reply.results
        if result.outcome is c.WriteOutcome.REJECTED:
            raise NotReady(f"{result.reason}: {result.message}")
        return None, True

    async def record(self) -> Told:
        done = c.Interaction(item_id="i00", user_id="ann")
        reply = await self._client.record_interactions([done], timeout_s=DEADLINE_S)
        return None, reply.recorded == 1


async def run_case(
    running: Cluster, caller: Caller, name: str, seconds: float
) -> dict[str, object]:
    """Runs one case for some seconds, and until a silent shard is asked no more."""
    victim, fault = CASES[name]
    part = running.parts[victim]
    await recovery_s(caller)
    seen = {kind: Calls() for kind in caller.kinds}
    start = time.perf_counter()
    spent_s = away_s = 0.0
    fault(part)
    try:
        waits = victim.startswith("shard")
        while spent_s <= seconds or (waits and not away_s and spent_s < AWAY_S):
            await asyncio.gather(
                *(measure(seen[kind], call) for kind, call in caller.kinds.items())
            )
            spent_s = time.perf_counter() - start
            if not away_s and all(one.last_s < DEADLINE_S / 2 for one in seen.values()):
                away_s = spent_s
    finally:
        part.restore()
    back_s = await recovery_s(caller)
    return {
        "case": name,
        "away_s": round(away_s, 2),
        "recovered_s": round(back_s, 2),
        "kinds": {kind: one.to_json() for kind, one in seen.items()},
    }


async def measure(calls: Calls, call: Callable[[], Awaitable[Told]]) -> bool:
    """Makes a call; returns whether nothing was missing."""
    start = time.perf_counter()
    whole = False
    try:
        info, whole = await call()
        calls.answered += 1
        calls.false += not whole
        if info is not None:
            calls.missing.update(info.coverage.missing_shards)
            if info.served_by.source is c.Source.FALLBACK:
                calls.fallbacks.add(f"{info.served_by.rung}: {info.served_by.reason}")
            whole = whole and not info.coverage.missing_shards and not by_words(info)
    except NearlineError as error:
        name = type(error).__name__
        calls.errors[name] = calls.errors.get(name, 0) + 1
    calls.last_s = round(time.perf_counter() - start, 3)
    calls.longest_s = max(calls.longest_s, calls.last_s)
    return whole


async def recovery_s(caller: Caller) -> float:
    """Waits until every call is answered whole, with all changes; returns the seconds."""
    start = time.perf_counter()
    for kind in (*caller.kinds, "latest"):
        seen = Calls()
        while not await measure(seen, caller.kinds.get(kind, caller.latest)):
            if time.perf_counter() - start > RECOVERY_S:
                raise AssertionError(f"{kind} after {RECOVERY_S:g} s: {seen}")
            await asyncio.sleep(0.02)
    return time.perf_counter() - start


async def main() -> None:
    """Runs the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(Path(folder), chosen.shards) as running:
            caller = Caller(running, chosen.shards)
            for name in chosen.cases:
                row = await run_case(running, caller, name, chosen.seconds)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    go_apart(as_root=True)
    asyncio.run(main())
