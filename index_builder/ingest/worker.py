"""A worker: `python -m index_builder.ingest.worker --redis URL --retrieval HOST:PORT …`.

It takes documents from the queue, writes them to their collections, and says what became of each.
Any number may run, anywhere, and any of them may be killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from index_builder.ingest import metrics
from index_builder.ingest.item_writer import DocumentWriter
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.load_stats import REPORT_INTERVAL_S, LoadStatsReader
from index_builder.ingest.records import Unit
from index_builder.ingest.settings import WorkerSettings
from index_builder.ingest.unit_processor import RetryPolicy, UnitProcessor
from nearline import serving, settings, telemetry
from nearline.clients import RetrievalClient
from nearline.contract import IngestWorker
from nearline.errors import NearlineError, NotReady, SettingsError
from nearline.retry import Backoff
from retrieval.redis_client.connection import connect

_log = logging.getLogger("index_builder.ingest.worker")
# The speed that a worker names is that of so many seconds.
_RATE_S = 10.0
_AWAY_S = 1.0
# Scripts move whole batches; a slow disk under Redis takes its time.
_REDIS_TIMEOUT_S = 10.0


class Worker:
    """Works on the queue until it is told to stop.

    Args:
        work: The queue.
        processor: What is done with units.
        signal: Where it says that it is there.
        worker_id: Its name.
        chosen: Settings.
    """

    def __init__(
        self,
        work: LeaseQueue,
        processor: UnitProcessor,
        signal: LoadStatsReader,
        worker_id: str,
        chosen: WorkerSettings,
    ) -> None:
        self._work = work
        self._processor = processor
        self._signal = signal
        self._worker_id = worker_id
        self._chosen = chosen
        self._started = datetime.now(UTC)
        self._stopping = asyncio.Event()
        self._end_by = 0.0
        self._held: set[Unit] = set()
        # When documents ended, and how many.
        self._ended: deque[tuple[float, int]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._minding: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to work."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._chosen.in_flight)]
        self._minding = [
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._say()),
        ]

    def take_no_more(self) -> None:
        """Takes nothing more; its notice begins."""
        self._stopping.set()
        self._end_by = time.monotonic() + self._chosen.notice_s

    async def stop(self) -> None:
        """Ends what it holds within the notice, and gives back the rest."""
        if not self._stopping.is_set():
            self.take_no_more()
        if self._tasks:
            left_s = max(0.0, self._end_by - time.monotonic())
            _, late = await asyncio.wait(self._tasks, timeout=left_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for task in self._minding:
            task.cancel()
        if self._minding:
            await asyncio.wait(self._minding)
        self._processor.close()
        # Where Redis is away their leases end by themselves.
        with contextlib.suppress(NearlineError):
            given = await self._work.give_back(list(self._held), failed=False)
            await self._signal.forget([self._worker_id])
            _log.info("stopped working", extra={"given_back": given})

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                units = await self._work.take(self._chosen.batch)
            except NotReady as error:
                _log.warning("queue is away", extra={"reason": error.message})
                await self._pause(_AWAY_S)
                continue
            if not units:
                await self._pause(self._chosen.poll_s)
                continue
            start = time.monotonic()
            self._held.update(units)
            try:
                ended = await self._processor.process(units)
                self._ended.append((time.monotonic(), ended))
            except NotReady as error:
                _log.warning("queue is away", extra={"reason": error.message})
                await self._pause(_AWAY_S)
                # Where it is still away, what was not settled comes again once its lease is over.
                with contextlib.suppress(NotReady):
                    await self._work.give_back(units, failed=False)
            except asyncio.CancelledError:
                # It is time to stop: these are given back.
                raise
            except Exception:
                _log.exception("batch failed; it comes again", extra={"units": len(units)})
                await self._pause(_AWAY_S)
            self._held.difference_update(units)
            metrics.batch_seconds.observe(time.monotonic() - start)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._chosen.lease_s / 3)
            try:
                lost = await self._work.extend(list(self._held))
            except NearlineError as error:
                _log.warning("leases were not lengthened", extra={"reason": error.message})
                continue
            gone = [one for one in lost if one in self._held]
            metrics.lost_leases.inc(len(gone))

    async def _say(self) -> None:
        while True:
            with contextlib.suppress(NearlineError):
                await self._signal.say(self._about())
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _about(self) -> IngestWorker:
        now = time.monotonic()
        while self._ended and self._ended[0][0] < now - _RATE_S:
            self._ended.popleft()
        span_s = min(_RATE_S, (datetime.now(UTC) - self._started).total_seconds())
        return IngestWorker(
            worker_id=self._worker_id,
            in_hand=len(self._held),
            documents_per_s=round(sum(count for _, count in self._ended) / max(span_s, 1.0), 3),
            start_time=self._started,
        )


async def main(argv: Sequence[str]) -> None:
    """Works until it is told to stop."""
    chosen = settings.load_from_process(WorkerSettings, argv)
    telemetry.configure_logging(chosen.log_level, "worker")
    if not chosen.redis:
        raise SettingsError("a worker needs the queue; say where it is with --redis URL")
    if not chosen.retrieval:
        raise SettingsError(
            "a worker needs a router that indexes documents; name it: --retrieval HOST:PORT"
        )
    allowed = chosen.prefixes()
    redis = connect(chosen.redis, timeout_s=_REDIS_TIMEOUT_S, retries=0)
    client = RetrievalClient(chosen.retrieval)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    work = LeaseQueue(redis, worker_id, chosen.lease_s, chosen.limits())
    backoff = Backoff(chosen.backoff_s, chosen.max_backoff_s, jitter=(0.5, 1.0))
    retries = RetryPolicy(chosen.attempts, backoff)
    processor = UnitProcessor(work, DocumentWriter(client), retries, allowed, chosen.parse_s)
    worker = Worker(work, processor, LoadStatsReader(redis), worker_id, chosen)

    async def ready() -> None:
        worker.start()

    async def close() -> None:
        await worker.stop()
        await client.close()
        await redis.aclose()

    await serving.serve(chosen, [], ready=ready, stopping=worker.take_no_more, close=close)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "worker")
