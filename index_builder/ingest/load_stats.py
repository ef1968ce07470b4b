"""The state of the queue, by which workers are scaled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from index_builder.ingest import keys
from index_builder.ingest.script_runner import (
    CLOCK,
    NEEDED_BY,
    clock_us,
    open_pipeline,
    to_microseconds,
)
from nearline.contract import IngestWorker, QueueState
from nearline.times import from_us, to_us
from retrieval.redis_client.connection import Redis, translate_redis_errors

# Interval of the workers' reports; after `_SILENT_S` without one, a worker is considered gone.
REPORT_INTERVAL_S: Final = 1.0
_SILENT_S = 10.0
# The oldest waiting unit is searched for among the tenants whose turn is next.
_MAX_TENANTS = 16


class LoadStatsReader:
    """Reads the state of the queue, and records reports of workers.

    Args:
        client: Redis.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self) -> QueueState:
        """Returns the state of the queue. Raises: NotReady: Redis is unavailable."""
        async with open_pipeline(self._client) as pipe:
            pipe.eval(CLOCK, 1, keys.META)
            pipe.hmget(keys.META, "units", "bytes")
            pipe.zcard(keys.LEASES)
            pipe.zcard(keys.DELAYED)
            pipe.zcard(keys.SUSPECTS)
            pipe.xlen(keys.DEAD)
            pipe.hgetall(keys.WORKERS)
            pipe.zrange(keys.TENANTS, 0, _MAX_TENANTS - 1)
            replies = await pipe.execute()
        clock, (units, size), leased, delayed, suspects, dead, workers, waiting = replies
        delayed += suspects
        now_us = to_microseconds(clock)
        oldest_us = await self._oldest_us([one.decode() for one in waiting])
        alive = _alive(workers, now_us)
        in_hand = min(leased, int(units or 0))
        return QueueState(
            waiting=max(0, int(units or 0) - leased - delayed),
            in_hand=in_hand,
            delayed=delayed,
            dead=dead,
            oldest_age_s=max(0, now_us - oldest_us) / 1e6 if oldest_us else 0.0,
            documents_per_s=sum(one.documents_per_s for one in alive),
            workers=alive,
            bytes=int(size or 0),
        )

    async def report(self, worker: IngestWorker) -> None:
        """Records the report of a worker. Raises: NotReady: Redis is unavailable."""
        now_us = await clock_us(self._client)
        record = {
            "in_hand": worker.in_hand,
            "documents_per_s": worker.documents_per_s,
            "start_us": to_us(worker.start_time),
            "said_us": now_us,
        }
        async with translate_redis_errors(NEEDED_BY):
            await self._client.hset(keys.WORKERS, worker.worker_id, json.dumps(record))

    async def forget(self, worker_ids: Sequence[str]) -> None:
        """Deletes workers that have stopped. Raises: NotReady: Redis is unavailable."""
        if worker_ids:
            async with translate_redis_errors(NEEDED_BY):
                await self._client.hdel(keys.WORKERS, *worker_ids)

    async def silent_workers(self, longer_than_s: float) -> list[str]:
        """Returns the workers without a report for this long. Raises: NotReady."""
        async with translate_redis_errors(NEEDED_BY):
            now_us = await clock_us(self._client)
            workers: Any = await self._client.hgetall(keys.WORKERS)
        since_us = now_us - longer_than_s * 1e6
        return [
            name.decode()
            for name, replies in workers.items()
            if json.loads(replies)["said_us"] < since_us
        ]

    async def _oldest_us(self, tenants: Sequence[str]) -> int:
        """Returns the submission time of the oldest waiting unit; 0 if none waits."""
        lanes = [lane.key for tenant in tenants for lane in keys.lanes_of(tenant)]
        if not lanes:
            return 0
        async with open_pipeline(self._client) as pipe:
            for lane in lanes:
                pipe.execute_command("XINFO", "GROUPS", lane)
            groups = await pipe.execute(raise_on_error=False)
        async with open_pipeline(self._client) as pipe:
            for lane, replies in zip(lanes, groups, strict=True):
                # An empty lane does not exist.
                if not isinstance(replies, Exception) and replies:
                    pipe.xrange(lane, f"({_last_taken(replies[0])}", count=1)
            firsts = await pipe.execute()
        times = [int(entries[0][1][b"as_of"]) for entries in firsts if entries]
        return min(times, default=0)


def _last_taken(group: Any) -> str:
    if isinstance(group, Mapping):
        fields = {_text(key): one for key, one in group.items()}
    else:
        fields = {_text(key): one for key, one in zip(group[::2], group[1::2], strict=True)}
    return _text(fields["last-delivered-id"])


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _alive(workers: Mapping[bytes, bytes], now_us: int) -> list[IngestWorker]:
    found = []
    for name, replies in sorted(workers.items()):
        record = json.loads(replies)
        if now_us - record["said_us"] <= _SILENT_S * 1e6:
            found.append(
                IngestWorker(
                    worker_id=name.decode(),
                    in_hand=record["in_hand"],
                    documents_per_s=record["documents_per_s"],
                    start_time=from_us(record["start_us"]),
                )
            )
    return found
