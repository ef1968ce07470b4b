"""What the door does by itself: shows the queue, and clears away what its time is over for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from index_builder.ingest import keys, metrics
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.script_runner import NEEDED_BY, clock_us
from nearline.errors import NearlineError, NotFound
from retrieval.redis_client.connection import Redis, translate_redis_errors

_log = logging.getLogger(__name__)
_SHOW_EVERY_S = 2.0
_CLEAR_EVERY_S = 60.0
_SILENT_S = 3_600.0
_AT_ONCE = 1_000


class Janitor:
    """Shows the state of the queue in the metrics, and clears away. Several may run.

    Args:
        client: Redis.
        desk: Closes jobs.
        signal: Reads the state of the queue.
        abandoned_s: Seconds after which a job that was to get more is taken to be complete.
        dead_letter_ttl_s: Seconds that a dead letter is kept.
    """

    def __init__(
        self,
        client: Redis,
        desk: JobStore,
        signal: LoadStatsReader,
        abandoned_s: float,
        dead_letter_ttl_s: float,
    ) -> None:
        self._client = client
        self._desk = desk
        self._signal = signal
        self._abandoned_s = abandoned_s
        self._dead_letter_ttl_s = dead_letter_ttl_s

    async def run(self) -> None:
        """Goes round for ever; what fails in one round is tried again in the next."""
        cleared = -_CLEAR_EVERY_S
        clear_every_s = min(_CLEAR_EVERY_S, self._abandoned_s / 2)
        while True:
            try:
                metrics.show(await self._signal.read())
                if time.monotonic() >= cleared + clear_every_s:
                    await self.clear()
                    cleared = time.monotonic()
            except NearlineError as error:
                _log.warning("queue is away", extra={"reason": error.message})
            await asyncio.sleep(_SHOW_EVERY_S)

    async def clear(self) -> None:
        """Closes abandoned jobs; forgets jobs that expired, dead letters and silent workers.

        Raises: NotReady: Redis is away.
        """
        async with translate_redis_errors(NEEDED_BY):
            now_us = await clock_us(self._client)
            before_us = now_us - int(self._abandoned_s * 1e6)
            abandoned: Any = await self._client.zrangebyscore(keys.OPEN, "-inf", before_us)
            oldest_ms = (now_us - int(self._dead_letter_ttl_s * 1e6)) // 1_000
            await self._client.xtrim(keys.DEAD, minid=f"{oldest_ms}-0", approximate=False)
        for job_id in abandoned:
            with contextlib.suppress(NotFound):
                await self._desk.close(job_id.decode(), cancel=False)
        await self._signal.forget(await self._signal.silent(_SILENT_S))
        await self._forget_expired()

    async def _forget_expired(self) -> None:
        """Takes jobs that are there no more from the list, oldest first."""
        async with translate_redis_errors(NEEDED_BY):
            at = 0
            while names := await self._names(at):
                async with self._client.pipeline(transaction=False) as pipe:
                    for name in names:
                        pipe.exists(keys.job_key(name))
                    there = await pipe.execute()
                gone = [name for name, one in zip(names, there, strict=True) if not one]
                if gone:
                    await self._client.zrem(keys.JOBS, *gone)
                at += len(names) - len(gone)

    async def _names(self, at: int) -> list[str]:
        names: Any = await self._client.zrange(keys.JOBS, at, at + _AT_ONCE - 1)
        return [one.decode() for one in names]
