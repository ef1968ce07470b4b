"""How often the janitor works: it exports in every round, and clears once in an interval."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from index_builder.ingest import janitor as janitor_module, metrics
from index_builder.ingest.janitor import Janitor
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.load_stats import LoadStatsReader
from nearline.errors import NotReady


class CountedJanitor(Janitor):
    """Counts its rounds; the first `failing` of them find Redis away."""

    def __init__(self, abandoned_s: float, failing: int = 0) -> None:
        super().__init__(
            cast(Any, None), cast(JobStore, None), cast(LoadStatsReader, self), abandoned_s, 60.0
        )
        self.rounds = self.cleared = 0
        self._failing = failing

    async def read(self) -> None:
        """Stands for the state of the queue."""
        self.rounds += 1
        if self.rounds <= self._failing:
            raise NotReady("away")

    async def clear(self) -> None:
        self.cleared += 1


async def _run(janitor: CountedJanitor, rounds: int) -> None:
    running = asyncio.create_task(janitor.run())
    async with asyncio.timeout(10):
        while janitor.rounds < rounds and not running.done():
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor_module, "_EXPORT_INTERVAL_S", 0.0)
    monkeypatch.setattr(metrics, "show", lambda state: None)


async def test_it_clears_at_once_and_then_not_in_every_round() -> None:
    janitor = CountedJanitor(abandoned_s=3_600.0)
    await _run(janitor, 20)
    assert janitor.cleared == 1


async def test_it_clears_in_every_round_if_jobs_are_abandoned_at_once() -> None:
    janitor = CountedJanitor(abandoned_s=0.0)
    await _run(janitor, 20)
    assert janitor.cleared >= 19


async def test_it_goes_on_when_redis_is_back() -> None:
    janitor = CountedJanitor(abandoned_s=3_600.0, failing=5)
    await _run(janitor, 10)
    assert janitor.cleared == 1
