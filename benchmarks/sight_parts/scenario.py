"""Events while Prometheus scrapes: a canary, a damaged snapshot, deaths, poison, a flood."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.sight_parts.deployment import Deployment
from benchmarks.sight_parts.expressions import PrometheusClient
from benchmarks.sight_parts.load import AllCallers
from nearline.store.snapshot import Store
from retrieval.redis_client.connection import connect
from retrieval.snapshots import aliases

_LIMIT_S = 120.0
_POLL_S = 0.5
_COLLECTION = "default"
_FAILED_WRITES = (
    'service="router",method="UpsertItems",code=~"UNAVAILABLE|INTERNAL|UNKNOWN|DEADLINE_EXCEEDED"'
)
# Nine tenths of the memory of the bundled Redis, 512 MiB.
_FILLERS, _FILLER_BYTES = 46, 10 << 20


class FaultScenario:
    """The events, in order.

    Args:
        deployment: What runs.
        store: Folder of its store.
        load: Its callers.
        prometheus: Says what has been seen.
        note: Called with what happens.
    """

    def __init__(
        self,
        deployment: Deployment,
        store: Path,
        load: AllCallers,
        prometheus: PrometheusClient,
        note: Callable[[str], None],
    ) -> None:
        self._deployment = deployment
        self._folder = store
        self._store = Store(store)
        self._load = load
        self._prometheus = prometheus
        self._note = note

    async def run(self) -> None:
        """Lets everything happen; an event that is not seen in time is noted, and left behind."""
        await self._see("drift is measured", "count(nearline_retrieval_score_drift) > 1")
        await self._see("upkeep compacts", "max(nearline_retrieval_epoch) >= 2")
        await self._see("a rebuild is requested", "sum(nearline_retrieval_drift_rebuilds_total)")
        await self._try_canary()
        await self._damage_snapshot()
        await self._kill()
        await self._load.submit_poison()
        await self._see("a document becomes a dead letter", "max(nearline_ingest_dead_letters) > 0")
        await self._fill_redis()
        async with self._load.flood():
            await self._see("a tenant is limited", "sum(nearline_server_limited_calls_total) > 0")
            await self._see("calls are refused", "sum(nearline_server_refused_calls_total) > 0")
            await self._see("work is left out", "sum(nearline_server_left_out_total) > 0")
        # Rates need two scrapes after the last event.
        await asyncio.sleep(5)

    async def _try_canary(self) -> None:
        store = self._store
        record = await asyncio.to_thread(store.alias_in_force, _COLLECTION)
        others = [one for one in store.snapshot_ids(_COLLECTION) if one != record.current]
        if not others:
            self._note("there is no second snapshot to try")
            return
        await asyncio.to_thread(
            lambda: aliases.split(store, _COLLECTION, others[-1], share=0.5, why="sight")
        )
        await self._see("a canary answers", "max(nearline_retrieval_rollout_share) > 0")
        await self._see("it is judged", "count(nearline_retrieval_rollout_evidence) > 0")
        await asyncio.sleep(5)
        with contextlib.suppress(Exception):
            await asyncio.to_thread(aliases.end_split, store, _COLLECTION, why="sight")

    async def _damage_snapshot(self) -> None:
        store = self._store
        record = await asyncio.to_thread(store.alias_in_force, _COLLECTION)
        others = [one for one in store.snapshot_ids(_COLLECTION) if one != record.current]
        if not others:
            return
        # The routers have released it by then, as its trial has ended.
        for file in self._folder.glob(f"{_COLLECTION}/snapshots/{others[0]}/shards/*/dense.faiss"):
            file.write_bytes(b"damaged")
        await asyncio.to_thread(
            lambda: aliases.promote(store, _COLLECTION, others[0], why="sight", verify=False)
        )
        await self._see(
            "a snapshot cannot be served", "sum(nearline_retrieval_snapshot_failures_total) > 0"
        )
        await asyncio.to_thread(
            lambda: aliases.promote(store, _COLLECTION, record.current, why="sight", verify=False)
        )

    async def _kill(self) -> None:
        up = self._deployment
        up.signal("shard-0-replica-0", signal.SIGSTOP)
        await self._see("calls are hedged", "sum(nearline_retrieval_hedges_total) > 0")
        await self._see(
            "a silent replica is ejected", "sum(nearline_retrieval_replica_ejections_total) > 0"
        )
        up.signal("shard-0-replica-0", signal.SIGCONT)
        up.signal("shard-0-replica-1", signal.SIGKILL)
        await self._see("calls are retried", "sum(nearline_retrieval_retries_total) > 0")
        for name in ("shard-1-replica-0", "shard-1-replica-1"):
            up.signal(name, signal.SIGKILL)
        await self._see("answers lack a shard", "sum(nearline_retrieval_partial_answers_total) > 0")
        up.signal("embedding", signal.SIGSTOP)
        await self._see(
            "texts are searched by words", "sum(nearline_retrieval_lexical_fallbacks_total) > 0"
        )
        up.signal("embedding", signal.SIGCONT)
        up.signal("redis", signal.SIGSTOP)
        await self._see(
            "writes fail", f"sum(nearline_server_call_seconds_count{{{_FAILED_WRITES}}})"
        )
        up.signal("redis", signal.SIGCONT)

    async def _fill_redis(self) -> None:
        """Fills the Redis beyond what the feed block admits, and empties it again."""
        redis = connect(f"redis://{self._deployment.address_of('redis')}/0", timeout_s=30.0)
        for number in range(_FILLERS):
            await redis.set(f"filler:{number}", bytes(_FILLER_BYTES))
        await self._see("writes are refused", "sum(nearline_feed_block_refusals_total) > 0")
        await redis.delete(*(f"filler:{number}" for number in range(_FILLERS)))
        await redis.aclose()

    async def _see(self, what: str, query: str) -> None:
        """Waits until a query returns data."""
        start = time.monotonic()
        while time.monotonic() - start < _LIMIT_S:
            if await self._prometheus.has_data(query):
                self._note(f"{what}, after {time.monotonic() - start:.0f} s")
                return
            await asyncio.sleep(_POLL_S)
        self._note(f"not seen within {_LIMIT_S:.0f} s: {what}")
