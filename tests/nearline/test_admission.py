"""Calls under load, on a simulated server that shares its time among those that run."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import Task
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pytest

from nearline.admission import Admission, EndCall, leave_out
from nearline.contract import Lane
from nearline.errors import Overloaded
from nearline.wait_times import WaitTimes

STEP_S = 0.004
# A call that has its turn waits for so long for each of the others that run.
SLICE_S = 0.002


@dataclass
class Call:
    tenant: str
    arrived_s: float
    work_s: float
    deadline_s: float
    end: EndCall


@dataclass
class Server:
    """A processor that is shared equally by the calls that run.

    answered: In time, by tenant. late: Ended after their deadline. refused: By tenant.
    """

    max_calls: int = 1_024
    now_s: float = 0.0
    running: list[Call] = field(default_factory=list)
    begun: list[Call] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    crowded: Counter[str] = field(default_factory=Counter)
    late: int = 0
    tasks: dict[Task[None], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waits = WaitTimes()
        self.admission = Admission(self.max_calls, lambda: self.now_s, self.waits)

    async def run(
        self,
        seconds: float,
        rates: Mapping[str, float],
        *,
        work_s: float = 0.002,
        deadline_s: float = 0.5,
        deadlines_s: Mapping[str, float] = {},
        bulk: Collection[str] = (),
    ) -> None:
        """Takes calls at these rates; each needs `work_s` of the processor.

        deadlines_s: Deadlines of tenants that have others. bulk: Tenants whose calls are of the
        lane bulk.
        """
        for counted in (self.asked, self.answered, self.refused, self.crowded):
            counted.clear()
        self.late = 0
        end_s = self.now_s + seconds
        due = [(self.now_s + 1 / rate, name) for name, rate in rates.items()]
        heapq.heapify(due)
        while self.now_s < end_s:
            self.now_s += STEP_S
            while due and due[0][0] <= self.now_s:
                at_s, name = heapq.heappop(due)
                heapq.heappush(due, (at_s + 1 / rates[name], name))
                lane = Lane.BULK if name in bulk else Lane.INTERACTIVE
                limit_s = deadlines_s.get(name, deadline_s)
                call = self._call(name, work_s, limit_s, lane)
                self.tasks[asyncio.ensure_future(call)] = self.now_s + limit_s
            for task in [one for one, until_s in self.tasks.items() if until_s < self.now_s]:
                # Its caller has given up.
                self.late += task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.tasks = {one: at_s for one, at_s in self.tasks.items() if not one.done()}
            self._work()

    async def _call(self, name: str, work_s: float, deadline_s: float, lane: Lane) -> None:
        self.asked[name] += 1
        arrived_s = self.now_s
        try:
            end = await self.admission.begin(name.partition("/")[0], deadline_s, lane)
        except Overloaded:
            self.refused[name] += 1
            return
        self.crowded[name] += leave_out("model")
        self.running.append(Call(name, arrived_s, work_s, deadline_s, end))

    def _work(self) -> None:
        self.waits.note("processor", SLICE_S * len(self.running))
        each_s = STEP_S / max(1, len(self.running))
        left = []
        for call in self.running:
            call.work_s -= each_s
            spent_s = self.now_s - call.arrived_s
            if call.work_s <= 0 and spent_s <= call.deadline_s:
                self.answered[call.tenant] += 1
            elif spent_s > call.deadline_s:
                self.late += 1
            else:
                left.append(call)
                continue
            call.end()
        self.running = left


async def begin(server: Server, tenant: str, lane: Lane = Lane.INTERACTIVE) -> EndCall:
    """Begins a call that has its turn at once."""
    async with asyncio.timeout(1):
        return await server.admission.begin(tenant, None, lane)


async def fill(server: Server, tenant: str, count: int) -> list[EndCall]:
    return [await begin(server, tenant) for _ in range(count)]


async def overload(server: Server) -> int:
    """Lowers the limit to its least; returns it."""
    ends = await fill(server, "nobody", 20)
    server.now_s += 0.2
    server.waits.note("processor", 1.0)
    server.admission._adjust(server.now_s)
    for end in ends:
        end()
    return server.admission.limit


@pytest.mark.parametrize("times", [1.5, 3.0, 5.0, 10.0])
async def test_under_overload_as_much_is_answered_as_can_be_and_in_time(times: float) -> None:
    server = Server()
    # It can answer 500 calls a second.
    await server.run(2.0, {"a": 500 * times})
    await server.run(5.0, {"a": 500 * times})
    assert server.answered["a"] >= 0.95 * 2_500
    assert server.late <= 0.01 * server.answered["a"]


async def test_of_many_tenants_with_a_call_each_as_many_are_answered_and_in_time() -> None:
    server = Server()
    # 1,500 calls a second, three times what it can answer.
    rates = {f"t{number}": 0.75 + 1.5 * number / 1_000 for number in range(1_000)}
    await server.run(3.0, rates)
    await server.run(3.0, rates)
    assert server.answered.total() >= 0.85 * 1_500
    assert server.late <= 0.02 * server.answered.total()


@pytest.mark.parametrize("flood_deadline_s", [0.5, 5.0, 600.0])
async def test_a_tenant_that_floods_takes_nothing_from_one_that_does_not(
    flood_deadline_s: float,
) -> None:
    server = Server()
    # The quiet one asks for less than its half.
    rates = {"flood": 2_400.0, "quiet": 200.0}
    await server.run(2.0, rates, deadlines_s={"flood": flood_deadline_s})
    await server.run(5.0, rates, deadlines_s={"flood": flood_deadline_s})
    assert server.answered["quiet"] >= 0.98 * server.asked["quiet"]
    assert server.answered.total() + server.late >= 0.95 * 2_500
    assert server.crowded["quiet"] <= 0.03 * server.asked["quiet"]
    assert server.crowded["flood"] or flood_deadline_s > 0.5


async def test_two_that_flood_get_the_same() -> None:
    server = Server()
    await server.run(2.0, {"a": 4_000.0, "b": 1_000.0})
    await server.run(5.0, {"a": 4_000.0, "b": 1_000.0})
    assert server.answered["b"] == pytest.approx(server.answered["a"], rel=0.05)


@pytest.mark.parametrize("writes_deadline_s", [0.5, 30.0])
async def test_a_flood_of_writes_takes_at_most_half_from_the_searches_of_its_tenant(
    writes_deadline_s: float,
) -> None:
    server = Server()
    rates = {"shop/writes": 2_400.0, "shop/searches": 200.0}
    deadlines_s = {"shop/writes": writes_deadline_s}
    await server.run(2.0, rates, bulk=["shop/writes"], deadlines_s=deadlines_s)
    await server.run(3.0, rates, bulk=["shop/writes"], deadlines_s=deadlines_s)
    assert server.answered["shop/searches"] >= 0.98 * server.asked["shop/searches"]
    # What the searches leave is not lost.
    assert server.answered.total() >= 0.95 * 1_500


async def test_writes_have_their_turn_while_searches_of_the_tenant_wait() -> None:
    server = Server()
    rates = {"shop/writes": 100.0, "shop/searches": 2_400.0}
    await server.run(2.0, rates, bulk=["shop/writes"])
    await server.run(5.0, rates, bulk=["shop/writes"])
    assert server.answered["shop/writes"] >= 100


async def test_writes_have_their_turn_while_another_tenant_floods_the_lane() -> None:
    server = Server()
    rates = {"shop/writes": 20.0, "shop/searches": 2_400.0, "other/writes": 2_400.0}
    bulk = ["shop/writes", "other/writes"]
    await server.run(2.0, rates, bulk=bulk)
    await server.run(5.0, rates, bulk=bulk)
    assert server.answered["shop/writes"] >= 0.9 * server.asked["shop/writes"]
    assert server.answered.total() >= 0.95 * 2_500


async def test_after_an_overload_nothing_is_refused_and_the_limit_is_back() -> None:
    server = Server()
    await server.run(5.0, {"a": 2_500.0})
    assert server.admission.limit < 100
    await server.run(1.0, {"a": 250.0})
    await server.run(8.0, {"a": 250.0})
    assert not server.refused
    assert server.admission.limit == 1_024


async def test_without_overload_nothing_waits_however_many_run() -> None:
    server = Server()
    # Calls that wait for something else, for as long as their callers have.
    ends = await fill(server, "a", 900)
    server.now_s += 60.0
    for end in ends:
        end()
    assert server.admission.limit == 1_024


async def test_the_limit_falls_only_if_all_work_waited_for_the_same_threads() -> None:
    server = Server()
    ends = await fill(server, "a", 100)
    for first_s, second_s, limit in [(1.0, 0.0, 1_024), (1.0, 1.0, 80), (0.06, 0.2, 64)]:
        server.now_s += 0.2
        server.waits.note("threads", first_s)
        server.waits.note("threads", second_s)
        server.waits.note("loop", 0.0)
        ends.pop()()
        ends.append(await begin(server, "a")) if limit == 1_024 else server.admission._adjust(
            server.now_s
        )
        assert server.admission.limit == limit


async def test_a_call_that_would_wait_for_half_of_its_time_is_told_what_to_do() -> None:
    server = Server()
    await server.run(5.0, {"a": 5_000.0})
    expected = (
        r"\d+ calls wait for their turn, \d+ of tenant 'a', and one more would wait for about "
        r"\d+ of the 50 ms that it has; retry later, send fewer calls at once, raise the timeout"
    )
    with pytest.raises(Overloaded, match=expected) as caught:
        await server.admission.begin("a", 0.05)
    assert caught.value.retry_after_s


async def test_optional_work_is_left_out_by_calls_that_wait_for_a_quarter_of_their_time() -> None:
    server = Server()
    await server.run(2.0, {"a": 2_500.0})
    await server.run(2.0, {"a": 2_500.0})
    assert server.crowded["a"] >= 0.9 * server.answered["a"]
    await server.run(2.0, {"a": 2_500.0}, deadline_s=60.0)
    await server.run(2.0, {"a": 100.0}, deadline_s=60.0)
    assert not server.crowded["a"]


async def test_at_most_half_of_the_calls_that_run_are_bulk() -> None:
    server = Server(max_calls=10)
    ends = [await begin(server, "a", Lane.BULK) for _ in range(5)]
    waiting = asyncio.ensure_future(server.admission.begin("b", None, Lane.BULK))
    await asyncio.sleep(0)
    assert not waiting.done()
    # Searches need not wait behind it.
    searches = await fill(server, "a", 4)
    ends.pop()()
    await waiting
    for end in searches:
        end()
    await begin(Server(max_calls=1), "a", Lane.BULK)


async def test_the_tenant_with_the_fewest_calls_running_is_next() -> None:
    server = Server()
    limit = await overload(server)
    ends = {"a": await fill(server, "a", limit - 2), "b": await fill(server, "b", 2)}
    order: list[str] = []

    async def wait(name: str) -> None:
        ends[name].append(await server.admission.begin(name, None))
        order.append(name)

    tasks = [asyncio.ensure_future(wait(name)) for name in ("a", "a", "b", "b")]
    await asyncio.sleep(0)
    for _ in tasks:
        ends["a"].pop(0)()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert order == ["b", "b", "a", "a"]


async def test_a_caller_that_gives_up_leaves_its_place() -> None:
    server = Server()
    ends = await fill(server, "a", await overload(server))
    gone, stays = (asyncio.ensure_future(server.admission.begin("a", None)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    ends.pop()()
    (await stays)()
    # It gives up when its turn has come.
    last = asyncio.ensure_future(server.admission.begin("a", None))
    ends.append(await begin(server, "a"))
    await asyncio.sleep(0)
    ends.pop()()
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    assert last.cancelled()
    await begin(server, "a")


async def test_a_full_server_refuses_the_newest_call_of_whoever_has_the_most_waiting() -> None:
    server = Server(max_calls=40)
    limit = await overload(server)
    await fill(server, "flood", limit)
    flood = [
        asyncio.ensure_future(server.admission.begin("flood", None)) for _ in range(40 - limit)
    ]
    await asyncio.sleep(0)
    full = f"{limit} calls are running and {40 - limit} are waiting, and --max-calls is 40"
    with pytest.raises(Overloaded, match=full) as caught:
        await server.admission.begin("flood", None)
    assert caught.value.retry_after_s
    quiet = asyncio.ensure_future(server.admission.begin("quiet", None))
    await asyncio.sleep(0)
    assert not quiet.done()
    with pytest.raises(Overloaded, match=full):
        await flood[-1]
    assert not any(task.done() for task in flood[:-1])
    for task in (*flood, quiet):
        task.cancel()


async def test_streams_count_towards_the_most_calls_and_say_nothing_about_overload() -> None:
    server = Server(max_calls=20)
    streams = [server.admission.begin_stream(name) for name in ("a", "b") for _ in range(10)]
    streams.pop()()
    end = await begin(server, "a")
    full = "1 calls are running and 0 are waiting, and --max-calls is 20"
    with pytest.raises(Overloaded, match=full):
        server.admission.begin_stream("c")
    with pytest.raises(Overloaded, match=full):
        await begin(server, "c")
    server.now_s += 3_600.0
    for one in streams:
        one()
    end()
    assert server.admission.limit == 20


@pytest.mark.parametrize(("lane", "most"), [(Lane.INTERACTIVE, 32), (Lane.BULK, 2)])
async def test_a_part_of_the_calls_may_be_streams_of_one_tenant(lane: Lane, most: int) -> None:
    server = Server(max_calls=64)
    streams = [server.admission.begin_stream("a", lane) for _ in range(most)]
    with pytest.raises(Overloaded, match=f"{most} streams of tenant 'a' are open in the lane"):
        server.admission.begin_stream("a", lane)
    (await begin(server, "a"))()
    server.admission.begin_stream("b", lane)()
    server.admission.begin_stream("a", Lane.BULK if lane is Lane.INTERACTIVE else Lane.INTERACTIVE)
    streams.pop()()
    server.admission.begin_stream("a", lane)


async def test_a_tenant_that_does_not_read_its_replies_begins_neither_calls_nor_streams() -> None:
    server = Server()
    taken = server.admission.hold_reply("a", 256 << 20)
    with pytest.raises(Overloaded, match="of tenant 'a' have not read 268,435,456 bytes"):
        await begin(server, "a")
    with pytest.raises(Overloaded, match="of tenant 'a' have not read 268,435,456 bytes"):
        server.admission.begin_stream("a")
    server.admission.begin_stream("b")
    taken()
    server.admission.begin_stream("a")


def test_of_many_refusals_all_but_a_few_are_held_back() -> None:
    now_s = [0.0]
    admission = Admission(10, lambda: now_s[0])
    assert [admission.hold_s() for _ in range(12)] == [0.0] * 10 + [0.25] * 2
    now_s[0] = 0.1
    assert admission.hold_s() == 0.0
