"""Turns of calls, at random and at their limits: none is lost, given twice or forgotten."""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import Task

import pytest

from nearline.admission import Admission, EndCall
from nearline.contract import Lane
from nearline.errors import Overloaded
from nearline.wait_times import WaitTimes


class Clock:
    """Seconds that pass only when told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Served:
    """An admission whose work waits when told, and the calls that it runs."""

    def __init__(self, max_calls: int = 1_024) -> None:
        self.clock, self.waits = Clock(), WaitTimes()
        self.admission = Admission(max_calls, self.clock, self.waits)
        self.ends: list[EndCall] = []

    async def begin(
        self, tenant: str, left_s: float | None = None, lane: Lane = Lane.INTERACTIVE
    ) -> None:
        self.ends.append(await self.admission.begin(tenant, left_s, lane))

    async def fill(self, tenant: str, count: int) -> None:
        """Begins calls that have their turn at once."""
        async with asyncio.timeout(1):
            for _ in range(count):
                await self.begin(tenant)

    def start(self, tenant: str, lane: Lane = Lane.INTERACTIVE) -> Task[None]:
        return asyncio.ensure_future(self.begin(tenant, None, lane))

    def note_overload(self) -> None:
        """Lets all work of a window have waited."""
        self.waits.note("threads", 1.0)
        self.clock.now_s += 0.2


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_calls_cancellations_and_ends_nothing_runs_or_waits(seed: int) -> None:
    draw = random.Random(seed)
    server = Served(max_calls=60)
    admission = server.admission
    tasks: list[Task[None]] = []
    streams: list[EndCall] = []
    outcomes: list[BaseException | None] = []
    for _ in range(4_000):
        what = draw.random()
        if what < 0.4:
            tenant = f"t{draw.choice([0, 0, 0, draw.randrange(50)])}"
            left_s = draw.choice([None, 0.01, 0.5, 600.0])
            call = server.begin(tenant, left_s, draw.choice(list(Lane)))
            tasks.append(asyncio.ensure_future(call))
        elif what < 0.55 and tasks:
            draw.choice(tasks).cancel()
        elif what < 0.75 and server.ends:
            server.ends.pop(draw.randrange(len(server.ends)))()
        elif what < 0.78:
            try:
                streams.append(admission.begin_stream("t0"))
            except Overloaded:
                pass
        elif what < 0.8 and streams:
            streams.pop()()
        elif what < 0.85:
            server.clock.now_s += 0.03
            server.waits.note("threads", draw.choice([0.0, 1.0]))
        else:
            await asyncio.sleep(0)
            done = [task for task in tasks if task.done()]
            tasks = [task for task in tasks if not task.done()]
            outcomes += await asyncio.gather(*done, return_exceptions=True)
        calls, waiting, of_tenants = _counts(admission)
        assert calls == of_tenants
        assert calls + waiting + len(streams) <= 60
        assert 0 <= admission._bulk <= calls
    for task in tasks:
        task.cancel()
    outcomes += await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError | Overloaded | None) for one in outcomes)
    for end in (*server.ends, *streams):
        end()
    assert _counts(admission) == (0, 0, 0)
    assert not admission._bulk and not admission._queues and not admission._running
    assert not admission._running_bulk and not admission._streams
    # As many run as before, if what waited last does not lower the limit.
    server.ends.clear()
    server.waits.take()
    await server.fill("a", admission.limit)


def _counts(admission: Admission) -> tuple[int, int, int]:
    """Returns the calls that run and wait, and those that run by tenant."""
    waiting = sum(len(queue.calls) for queue in admission._queues.values())
    assert waiting == admission._waiting
    return admission._calls, waiting, admission._running.total()


async def test_calls_that_wait_have_their_turn_when_work_no_longer_does() -> None:
    server = Served()
    await server.fill("a", 17)
    server.note_overload()
    # It waits for calls that run for minutes, such as answers of a model.
    waiting = server.start("a")
    await asyncio.sleep(0)
    assert not waiting.done()
    # No other call begins or ends.
    async with asyncio.timeout(5):
        while not waiting.done():
            server.clock.now_s += 0.2
            await asyncio.sleep(0.01)


async def test_a_loop_that_was_held_while_few_calls_ran_keeps_no_later_ones_waiting() -> None:
    server = Served()
    await server.fill("a", 10)
    server.note_overload()
    await server.fill("a", 500)


async def test_a_turn_costs_as_much_with_a_thousand_tenants_waiting_as_with_one() -> None:
    server = Served()
    await server.fill("a", 20)
    while server.admission.limit > 16:
        server.note_overload()
        server.admission._adjust(server.clock.now_s)
    tasks = [server.start(f"t{number}") for number in range(1_000)]
    await asyncio.sleep(0)
    spent_s, turns = 0.0, 0
    while server.ends:
        end = server.ends.pop()
        start_s = time.thread_time()
        end()
        spent_s += time.thread_time() - start_s
        turns += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert turns == 1_020 and all(task.done() for task in tasks)
    assert spent_s / turns < 100e-6


async def test_a_full_server_refuses_the_new_call_when_the_newest_one_was_just_given_up() -> None:
    server = Served(max_calls=20)
    await server.fill("flood", 18)
    server.note_overload()
    waiting = [server.start("flood"), server.start("flood")]
    await asyncio.sleep(0)
    new = server.start("quiet")
    waiting[-1].cancel()
    await asyncio.sleep(0)
    # It has the place that was given up.
    assert not new.done()
    for task in (*waiting, new):
        task.cancel()


async def test_a_full_server_keeps_the_waiting_call_of_a_tenant_with_fewer_calls() -> None:
    server = Served(max_calls=40)
    for _ in range(20):
        await server.begin("writer", None, Lane.BULK)
    # Half of the room is the most for its lane.
    quiet = server.start("quiet", Lane.BULK)
    await asyncio.sleep(0)
    await server.fill("flood", 19)
    with pytest.raises(Overloaded, match="39 calls are running and 1 are waiting"):
        await server.begin("writer")
    with pytest.raises(Overloaded, match="39 calls are running and 1 are waiting"):
        server.admission.begin_stream("flood")
    await asyncio.sleep(0)
    assert not quiet.done()
    quiet.cancel()
