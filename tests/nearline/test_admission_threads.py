"""Overload by calls that take long, on a simulated server whose threads take them in order."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import deque
from typing import NamedTuple

import pytest

from nearline.admission import Admission, EndCall
from nearline.errors import Overloaded
from nearline.wait_times import WaitTimes

STEP_S = 0.01


class Call(NamedTuple):
    """A call that has its turn."""

    begun_s: float
    deadline_s: float
    end: EndCall


class Threads:
    """So many threads, each of which works on one call at a time.

    answered: In time. late: Answered or given up after their deadline.
    """

    def __init__(self, count: int, work_s: float) -> None:
        self.now_s = 0.0
        self.answered = self.late = 0
        self._count, self._work_s = count, work_s
        self._waits = WaitTimes()
        self.admission = Admission(1_024, lambda: self.now_s, self._waits)
        self._waiting: deque[Call] = deque()
        # Each with when it is done.
        self._working: list[tuple[float, Call]] = []
        self._tasks: dict[Task[None], float] = {}

    async def run(self, seconds: float, rate: float, deadline_s: float) -> None:
        """Takes calls at a rate."""
        self.answered = self.late = 0
        end_s, due_s = self.now_s + seconds, self.now_s
        while self.now_s < end_s:
            self.now_s += STEP_S
            while due_s <= self.now_s:
                due_s += 1 / rate
                self._tasks[asyncio.ensure_future(self._call(deadline_s))] = self.now_s + deadline_s
            self._give_up()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._waits.note("loop", 0.0)
            self._work()

    async def _call(self, deadline_s: float) -> None:
        arrived_s = self.now_s
        try:
            end = await self.admission.begin("a", deadline_s)
        except Overloaded:
            return
        self._waiting.append(Call(self.now_s, arrived_s + deadline_s, end))

    def _give_up(self) -> None:
        for task in [one for one, until_s in self._tasks.items() if until_s < self.now_s]:
            self.late += task.cancel()
        self._tasks = {one: at_s for one, at_s in self._tasks.items() if not one.done()}
        while self._waiting and self._waiting[0].deadline_s < self.now_s:
            self._waiting.popleft().end()
            self.late += 1

    def _work(self) -> None:
        for done_s, call in [one for one in self._working if one[0] <= self.now_s]:
            self._working.remove((done_s, call))
            call.end()
            self.answered += self.now_s <= call.deadline_s
            self.late += self.now_s > call.deadline_s
        while self._waiting and len(self._working) < self._count:
            call = self._waiting.popleft()
            self._waits.note("threads", self.now_s - call.begun_s)
            self._working.append((self.now_s + self._work_s, call))


@pytest.mark.parametrize(
    ("threads", "work_s", "deadline_s"),
    [(4, 0.02, 0.5), (1, 0.03, 0.5), (4, 0.1, 0.6), (4, 0.5, 3.0), (4, 1.0, 6.0)],
)
async def test_calls_that_take_long_are_answered_in_time_under_overload(
    threads: int, work_s: float, deadline_s: float
) -> None:
    server = Threads(threads, work_s)
    capacity = threads / work_s
    await server.run(10.0, 3 * capacity, deadline_s)
    await server.run(20.0, 3 * capacity, deadline_s)
    assert server.answered >= 0.75 * 20 * capacity
    assert server.late <= 0.1 * server.answered
