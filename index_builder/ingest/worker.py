"""A queue worker: `python -m index_builder.ingest.worker --redis URL --retrieval HOST:PORT …`.

It takes documents from the queue, writes them to their collections, and records their outcomes. Any
number may run, on any machine, and each may be killed at any time.
"""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from index_builder.ingest import metrics
from index_builder.ingest.availability import AvailabilityLog
from index_builder.ingest.document_writer import DocumentWriter
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.load_stats import REPORT_INTERVAL_S, LoadStatsReader
from index_builder.ingest.records import Unit
from index_builder.ingest.settings import WorkerSettings
from index_builder.ingest.table_columns import columns_by
from index_builder.ingest.unit_processor import RetryPolicy, UnitProcessor
from nearline import serving, settings, telemetry
from nearline.clients import AdminClient, RetrievalClient
from nearline.contract import IngestWorker, Lane
from nearline.errors import NearlineError, NotReady, SettingsError
from nearline.retry import Backoff
from nearline.tracing.spans import begin_work, end_span, set_facts
from retrieval.redis_client.connection import connect
from retrieval.writes.feed_block import FeedBlock, redis_resource

_log = logging.getLogger("index_builder.ingest.worker")
# The reported throughput covers this many seconds.
_RATE_WINDOW_S = 10.0
_AWAY_S = 1.0
# Scripts process whole batches, and the disk under Redis may be slow.
_REDIS_TIMEOUT_S = 10.0


class _Turns:
    """Lets tasks work together, or one alone once the others have finished what they hold."""

    def __init__(self) -> None:
        self._entry = asyncio.Lock()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Works beside others."""
        async with self._entry:
            self._busy += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Works while no other task does."""
        async with self._entry:
            await self._idle.wait()
            yield


class Worker:
    """Processes the queue until it is stopped.

    Args:
        queue: The queue.
        processor: Processes units.
        load_stats: Receives the worker's reports.
        worker_id: Unique name of the worker.
        chosen: Settings.
    """

    def __init__(
        self,
        queue: LeaseQueue,
        processor: UnitProcessor,
        load_stats: LoadStatsReader,
        worker_id: str,
        chosen: WorkerSettings,
    ) -> None:
        self._queue = queue
        self._processor = processor
        self._load_stats = load_stats
        self._worker_id = worker_id
        self._chosen = chosen
        self._started = datetime.now(UTC)
        self._availability = AvailabilityLog(_log)
        self._stopping = asyncio.Event()
        self._end_by = 0.0
        self._held: set[Unit] = set()
        self._turns = _Turns()
        # Times at which documents finished, with their numbers.
        self._finished: deque[tuple[float, int]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts processing."""
        # The first task also processes suspects, for which the others pause.
        self._tasks = [
            asyncio.create_task(self._run(suspects=number == 0))
            for number in range(self._chosen.in_flight)
        ]
        self._background = [
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._report_status()),
        ]

    def drain(self) -> None:
        """Stops taking units; the notice period begins."""
        self._stopping.set()
        self._end_by = time.monotonic() + self._chosen.notice_s

    async def stop(self) -> None:
        """Finishes held units within the notice period, and gives the rest back."""
        if not self._stopping.is_set():
            self.drain()
        if self._tasks:
            left_s = max(0.0, self._end_by - time.monotonic())
            _, late = await asyncio.wait(self._tasks, timeout=left_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        self._processor.close()
        # If Redis is unavailable, the leases expire.
        with contextlib.suppress(NearlineError):
            returned = await self._queue.give_back(list(self._held), failed=False)
            await self._load_stats.forget([self._worker_id])
            _log.info("stopped working", extra={"given_back": returned})

    async def _run(self, *, suspects: bool) -> None:
        while not self._stopping.is_set():
            try:
                if suspects and await self._queue.has_suspects():
                    await self._process_suspects()
                async with self._turns.together():
                    units = await self._queue.take(self._chosen.batch)
                    self._availability.succeeded()
                    if units:
                        await self._process(units)
            except NotReady as error:
                self._availability.failed(error.message)
                await self._pause(_AWAY_S)
                continue
            if not units:
                await self._pause(self._chosen.poll_s)

    async def _process_suspects(self) -> None:
        """Processes suspects one at a time while this worker holds nothing else."""
        async with self._turns.alone():
            while not self._stopping.is_set():
                unit = await self._queue.take_suspect()
                if unit is None:
                    return
                await self._process([unit])

    async def _process(self, units: Sequence[Unit]) -> None:
        start = time.monotonic()
        span = begin_work("ingest batch", (one.trace for one in units if one.trace))
        self._held.update(units)
        failure = ""
        try:
            finished = await self._processor.process(units)
            self._finished.append((time.monotonic(), finished))
        except NotReady as error:
            failure = type(error).__name__
            self._availability.failed(error.message)
            await self._pause(_AWAY_S)
            # If Redis is still unavailable, unsettled units return when their leases expire.
            with contextlib.suppress(NotReady):
                await self._queue.give_back(units, failed=False)
        except asyncio.CancelledError as error:
            # The worker is stopping: `stop` gives these units back.
            failure = type(error).__name__
            raise
        except Exception as error:
            failure = type(error).__name__
            _log.exception("batch failed; it will be retried", extra={"units": len(units)})
            await self._pause(_AWAY_S)
        finally:
            if span is not None:
                set_facts(span, {"units": len(units)})
                end_span(span, failure)
        self._held.difference_update(units)
        metrics.batch_seconds.observe(time.monotonic() - start)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._chosen.lease_s / 3)
            try:
                lost = await self._queue.extend(list(self._held))
            except NearlineError as error:
                _log.warning("leases were not extended", extra={"reason": error.message})
                continue
            gone = [one for one in lost if one in self._held]
            metrics.lost_leases.inc(len(gone))

    async def _report_status(self) -> None:
        while True:
            with contextlib.suppress(NearlineError):
                await self._load_stats.report(self._status())
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _status(self) -> IngestWorker:
        now = time.monotonic()
        while self._finished and self._finished[0][0] < now - _RATE_WINDOW_S:
            self._finished.popleft()
        span_s = min(_RATE_WINDOW_S, (datetime.now(UTC) - self._started).total_seconds())
        return IngestWorker(
            worker_id=self._worker_id,
            in_hand=len(self._held),
            documents_per_s=round(sum(count for _, count in self._finished) / max(span_s, 1.0), 3),
            start_time=self._started,
        )


async def main(argv: Sequence[str]) -> None:
    """Processes the queue until the process is asked to stop."""
    chosen = settings.load_from_process(WorkerSettings, argv)
    telemetry.configure_logging(chosen.log_level, "worker")
    if not chosen.redis:
        raise SettingsError("a worker needs the Redis that holds the queue; pass --redis URL")
    if not chosen.retrieval:
        raise SettingsError(
            "a worker needs a router that indexes documents; pass --retrieval HOST:PORT"
        )
    allowed = chosen.prefixes()
    redis = connect(chosen.redis, timeout_s=_REDIS_TIMEOUT_S, retries=0)
    client = RetrievalClient(chosen.retrieval, lane=Lane.BULK)
    admin = AdminClient(chosen.retrieval)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    queue = LeaseQueue(redis, worker_id, chosen.lease_s, chosen.queue_limits())
    backoff = Backoff(chosen.backoff_s, chosen.max_backoff_s, jitter=(0.5, 1.0))
    retries = RetryPolicy(chosen.attempts, backoff)
    feed_block = FeedBlock([redis_resource(redis, chosen.feed_block_redis)])
    processor = UnitProcessor(
        queue,
        DocumentWriter(client),
        retries,
        allowed,
        chosen.parse_s,
        chosen.fetch_s,
        feed_block,
        columns_by(admin),
    )
    worker = Worker(queue, processor, LoadStatsReader(redis), worker_id, chosen)

    async def ready() -> None:
        await feed_block.start()
        worker.start()

    async def close() -> None:
        await worker.stop()
        await feed_block.close()
        await client.close()
        await admin.close()
        await redis.aclose()

    await serving.serve(chosen, [], ready=ready, stopping=worker.drain, close=close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "worker")
