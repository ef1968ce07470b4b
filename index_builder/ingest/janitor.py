"""Maintenance by the ingest service: exports the state of the queue, and deletes expired data."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from index_builder.ingest import keys, metrics
from index_builder.ingest.availability import AvailabilityLog
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.script_runner import NEEDED_BY, clock_us
from nearline.errors import NearlineError, NotFound
from retrieval.redis_client.connection import Redis, translate_redis_errors

_log = logging.getLogger(__name__)
_EXPORT_INTERVAL_S = 2.0
_CLEAR_INTERVAL_S = 60.0
_SILENT_S = 3_600.0


class Janitor:
    """Exports the state of the queue as metrics, and deletes expired data. Several may run.

    Args:
        client: Redis.
        job_store: Closes jobs.
        load_stats: Reads the state of the queue.
        abandoned_s: Seconds without new sources after which an open job is closed.
        dead_letter_ttl_s: Seconds that a dead letter is kept.
    """

    def __init__(
        self,
        client: Redis,
        job_store: JobStore,
        load_stats: LoadStatsReader,
        abandoned_s: float,
        dead_letter_ttl_s: float,
    ) -> None:
        self._client = client
        self._job_store = job_store
        self._load_stats = load_stats
        self._abandoned_s = abandoned_s
        self._dead_letter_ttl_s = dead_letter_ttl_s

    async def run(self) -> None:
        """Runs forever; a failed round is repeated in the next."""
        availability = AvailabilityLog(_log)
        last_clear = -_CLEAR_INTERVAL_S
        interval_s = min(_CLEAR_INTERVAL_S, self._abandoned_s / 2)
        while True:
            try:
                metrics.show(await self._load_stats.read())
                if time.monotonic() >= last_clear + interval_s:
                    await self.clear()
                    last_clear = time.monotonic()
                availability.succeeded()
            except NearlineError as error:
                availability.failed(error.message)
            await asyncio.sleep(_EXPORT_INTERVAL_S)

    async def clear(self) -> None:
        """Closes abandoned jobs; deletes expired jobs, dead letters and silent workers.

        Raises: NotReady: Redis is unavailable.
        """
        async with translate_redis_errors(NEEDED_BY):
            now_us = await clock_us(self._client)
            before_us = now_us - int(self._abandoned_s * 1e6)
            abandoned: Any = await self._client.zrangebyscore(keys.OPEN, "-inf", before_us)
            oldest_ms = (now_us - int(self._dead_letter_ttl_s * 1e6)) // 1_000
        await self._job_store.letters.expire(oldest_ms)
        for job_id in abandoned:
            with contextlib.suppress(NotFound):
                await self._job_store.close(job_id.decode(), cancel=False)
        await self._load_stats.forget(await self._load_stats.silent_workers(_SILENT_S))
        await self._job_store.forget_jobs()
