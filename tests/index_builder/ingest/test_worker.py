"""A worker goes on when Redis or a service is away, and keeps nothing when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from index_builder.ingest import worker as worker_module
from index_builder.ingest.keys import Lane
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import Unit
from index_builder.ingest.settings import WorkerSettings
from index_builder.ingest.unit_processor import UnitProcessor
from index_builder.ingest.worker import Worker
from nearline.contract import IngestWorker, Item, JobPriority
from nearline.errors import NotReady
from tests.nearline.tracing.recorded_spans import recording
from tests.waits import until


def _unit(entry: str) -> Unit:
    return Unit(
        lane=Lane(JobPriority.NORMAL, "default"),
        entry=entry,
        job_id="job",
        collection="default",
        place=0,
        as_of=datetime.now(UTC),
        source=Item(id="a", text="text"),
    )


class Queue:
    """Returns batches or raises errors in the given order, and then nothing."""

    def __init__(self, *answers: list[Unit] | Exception) -> None:
        self._answers = list(answers)
        self.taken = 0
        self.given_back: list[Unit] = []
        self.extended: list[list[Unit]] = []

    async def has_suspects(self) -> bool:
        return False

    async def take(self, batch: int) -> list[Unit]:
        self.taken += 1
        answer: list[Unit] | Exception = self._answers.pop(0) if self._answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def give_back(self, units: Sequence[Unit], *, failed: bool) -> int:
        assert not failed
        self.given_back += units
        return len(units)

    async def extend(self, units: list[Unit]) -> list[Unit]:
        self.extended.append(units)
        return []


class Processor:
    """Processes units, or raises an error the first time; `gate` holds it up."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.processed: list[Unit] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def process(self, units: Sequence[Unit]) -> int:
        error, self._error = self._error, None
        if error is not None:
            raise error
        await self.gate.wait()
        self.processed += units
        return len(units)

    def close(self) -> None:
        pass


class Stats:
    """Remembers which workers there are."""

    def __init__(self) -> None:
        self.workers: dict[str, IngestWorker] = {}

    async def report(self, status: IngestWorker) -> None:
        self.workers[status.worker_id] = status

    async def forget(self, workers: Sequence[str]) -> None:
        for worker in workers:
            self.workers.pop(worker, None)


def _worker(queue: Queue, processor: Processor, stats: Stats, **chosen: float) -> Worker:
    settings = WorkerSettings.model_validate({"in_flight": 1, "poll_s": 0.001, **chosen})
    return Worker(
        cast(LeaseQueue, queue),
        cast(UnitProcessor, processor),
        cast(LoadStatsReader, stats),
        "w1",
        settings,
    )


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_AWAY_S", 0.001)


async def test_a_worker_goes_on_when_the_queue_is_back() -> None:
    unit = _unit("1-0")
    queue, processor, stats = Queue(NotReady("away"), [unit]), Processor(), Stats()
    worker = _worker(queue, processor, stats)
    worker.start()
    await until(lambda: processor.processed == [unit])
    assert list(stats.workers) == ["w1"]
    await worker.stop()
    assert (queue.given_back, stats.workers) == ([], {})


async def test_units_are_given_back_if_what_they_need_is_away() -> None:
    first, second = _unit("1-0"), _unit("2-0")
    queue, processor = Queue([first], [second]), Processor(NotReady("away"))
    worker = _worker(queue, processor, Stats())
    worker.start()
    await until(lambda: processor.processed == [second])
    await worker.stop()
    assert queue.given_back == [first]


async def test_a_batch_that_fails_is_left_to_its_lease_and_the_next_is_taken() -> None:
    first, second = _unit("1-0"), _unit("2-0")
    queue, processor = Queue([first], [second]), Processor(ValueError("a fault"))
    worker = _worker(queue, processor, Stats())
    worker.start()
    await until(lambda: processor.processed == [second])
    await worker.stop()
    assert queue.given_back == []


async def test_a_worker_that_stops_takes_nothing_more_and_gives_back_what_is_not_done() -> None:
    unit = _unit("1-0")
    queue, processor = Queue([unit]), Processor()
    processor.gate.clear()
    worker = _worker(queue, processor, Stats(), notice_s=0.01)
    worker.start()
    await until(lambda: queue.taken == 1)
    worker.drain()
    await worker.stop()
    assert queue.given_back == [unit]
    assert (queue.taken, processor.processed) == (1, [])


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (None, "CancelledError"),
        (NotReady("away"), "NotReady"),
        (ValueError("a fault"), "ValueError"),
    ],
)
async def test_the_span_of_a_batch_ends_with_what_ended_the_batch(
    error: Exception | None, failure: str
) -> None:
    with recording(1.0) as ended:
        queue, processor = Queue([_unit("1-0")]), Processor(error)
        processor.gate.clear()
        worker = _worker(queue, processor, Stats(), notice_s=0.01)
        worker.start()
        await until(lambda: queue.taken == 1 if error is None else bool(ended.get_finished_spans()))
        await worker.stop()
    [span] = ended.get_finished_spans()
    assert (span.name, span.status.description) == ("ingest batch", failure)
    assert span.attributes == {"nearline.units": 1}


async def test_leases_of_held_units_are_extended_and_counted_in_the_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "REPORT_INTERVAL_S", 0.001)
    unit = _unit("1-0")
    queue, processor, stats = Queue([unit]), Processor(), Stats()
    processor.gate.clear()
    worker = _worker(queue, processor, stats, lease_s=1.0)
    worker.start()
    await until(lambda: queue.extended == [[unit]])
    await until(lambda: stats.workers["w1"].in_hand == 1)
    processor.gate.set()
    await until(lambda: stats.workers["w1"].in_hand == 0)
    await until(lambda: stats.workers["w1"].documents_per_s > 0)
    await worker.stop()


async def test_a_lease_outlasts_an_extension_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class FailsOnce(Queue):
        async def extend(self, units: list[Unit]) -> list[Unit]:
            await super().extend(units)
            if len(self.extended) == 1:
                raise NotReady("away")
            return []

    slept: list[float] = []
    sleep = asyncio.sleep

    async def hurried(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.001))

    monkeypatch.setattr(asyncio, "sleep", hurried)
    monkeypatch.setattr(worker_module, "REPORT_INTERVAL_S", 0.001)
    unit = _unit("1-0")
    queue, processor = FailsOnce([unit]), Processor()
    processor.gate.clear()
    worker = _worker(queue, processor, Stats(), lease_s=60.0)
    worker.start()
    await until(lambda: len(queue.extended) >= 2)
    processor.gate.set()
    await worker.stop()
    assert queue.extended[1] == [unit]
    assert sum([one for one in slept if one > 1.0][:2]) < 60.0
