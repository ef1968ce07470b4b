"""Calls under load, on a simulated server that shares its time among those that run."""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pytest

from nearline.admission import Admission, EndCall
from nearline.contract import Lane
from nearline.errors import DeadlineExceeded, Overloaded

STEP_S = 0.004


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
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    late: int = 0
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admission = Admission(self.max_calls, lambda: self.now_s)

    def run(
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
        end_s = self.now_s + seconds
        due = [(self.now_s + 1 / rate, name) for name, rate in rates.items()]
        heapq.heapify(due)
        while self.now_s < end_s:
            self.now_s += STEP_S
            while due and due[0][0] <= self.now_s:
                at_s, name = heapq.heappop(due)
                heapq.heappush(due, (at_s + 1 / rates[name], name))
                lane = Lane.BULK if name in bulk else Lane.INTERACTIVE
                self._arrive(name, work_s, deadlines_s.get(name, deadline_s), lane)
            self._work()

    def _arrive(self, name: str, work_s: float, deadline_s: float, lane: Lane) -> None:
        self.asked[name] += 1
        try:
            end = self.admission.begin(name.partition("/")[0], deadline_s, lane)
        except Overloaded:
            self.refused[name] += 1
            return
        self.running.append(Call(name, self.now_s, work_s, deadline_s, end))

    def _work(self) -> None:
        each_s = STEP_S / max(1, len(self.running))
        for call in self.running:
            call.work_s -= each_s
        left = []
        for call in self.running:
            spent_s = self.now_s - call.arrived_s
            if call.work_s <= 0 and spent_s <= call.deadline_s:
                self.answered[call.tenant] += 1
                self.seconds.append(spent_s)
            elif spent_s > call.deadline_s:
                self.late += 1
            else:
                left.append(call)
                continue
            call.end()
        self.running = left


@pytest.mark.parametrize("times", [1.5, 3.0, 5.0, 10.0])
def test_under_overload_as_much_is_answered_as_can_be_and_in_time(times: float) -> None:
    server = Server()
    # It can answer 500 calls a second.
    server.run(3.0, {"a": 500 * times})
    server.answered.clear()
    server.late = 0
    server.run(5.0, {"a": 500 * times})
    assert server.answered["a"] >= 0.9 * 2_500
    assert server.late <= 0.05 * server.answered["a"]


def test_a_tenant_that_floods_takes_nothing_from_one_that_does_not() -> None:
    server = Server()
    # The quiet one asks for less than its half.
    rates = {"flood": 2_400.0, "quiet": 200.0}
    server.run(3.0, rates)
    server.asked.clear()
    server.answered.clear()
    server.run(5.0, rates)
    assert server.answered["quiet"] >= 0.95 * server.asked["quiet"]
    assert server.answered.total() >= 0.9 * 2_500


@pytest.mark.parametrize("rate", [5.0, 20.0, 100.0])
def test_calls_that_may_take_long_do_not_hide_that_those_of_others_are_late(rate: float) -> None:
    server = Server()
    rates, deadlines_s = {"flood": 2_400.0, "quiet": rate}, {"flood": 600.0, "quiet": 1.0}
    server.run(5.0, rates, deadlines_s=deadlines_s)
    server.asked.clear()
    server.answered.clear()
    server.run(15.0, rates, deadlines_s=deadlines_s)
    assert server.answered["quiet"] >= 0.9 * server.asked["quiet"]
    assert server.answered.total() >= 0.9 * 7_500


def test_a_call_that_would_end_too_late_is_not_begun_by_the_times_of_its_own_tenant() -> None:
    server = Server()
    server.run(5.0, {"a": 2_500.0})
    begin = server.admission.begin
    # Each that was begun took a quarter of a second or so.
    with pytest.raises(Overloaded, match=r"has 60 ms left, and takes about \d+ ms now") as caught:
        begin("a", 0.06)
    assert caught.value.retry_after_s
    with pytest.raises(DeadlineExceeded, match="has 10 ms left"):
        begin("a", 0.01)
    for call in server.running:
        call.end()
    begin("a", 0.01, method="another")()
    begin("b", 0.01)()
    # What is not measured again is forgotten.
    for _ in range(20):
        server.now_s += 0.1
        with contextlib.suppress(DeadlineExceeded):
            begin("a", 0.01)()
    begin("a", 0.01)()


def test_a_deadline_that_nothing_could_meet_says_nothing_about_the_server() -> None:
    server = Server()
    for _ in range(300):
        # Of ten calls, one is given up after 3 ms.
        ends = [server.admission.begin("others", 1.0) for _ in range(9)]
        end = server.admission.begin("hasty", 0.003)
        server.now_s += 0.004
        for one in (*ends, end):
            one()
    assert server.admission.limit == 1_024


def test_bulk_calls_of_a_tenant_leave_half_of_the_room_to_its_searches() -> None:
    server = Server()
    rates = {"shop/writes": 2_400.0, "shop/searches": 200.0}
    server.run(3.0, rates, bulk=["shop/writes"])
    server.asked.clear()
    server.answered.clear()
    server.run(5.0, rates, bulk=["shop/writes"])
    assert server.answered["shop/searches"] >= 0.95 * server.asked["shop/searches"]
    # What the searches leave is not lost.
    assert server.answered.total() >= 0.9 * 2_500


def test_at_most_half_of_the_calls_are_bulk_also_without_overload() -> None:
    server = Server(max_calls=10)
    ends = [server.admission.begin("a", 1.0, Lane.BULK) for _ in range(5)]
    with pytest.raises(Overloaded, match=r"5 calls of the lane bulk .* half of the 10 ") as caught:
        server.admission.begin("b", 1.0, Lane.BULK)
    assert caught.value.retry_after_s
    searches = [server.admission.begin("a", 1.0) for _ in range(5)]
    ends.pop()()
    server.admission.begin("b", 1.0, Lane.BULK)
    for end in searches:
        end()
    Server(max_calls=1).admission.begin("a", 1.0, Lane.BULK)


def test_optional_work_is_left_out_for_those_who_run_much_of_what_may_run() -> None:
    server = Server()
    late = server.admission.begin("impatient", 0.001)
    server.now_s += 1.0
    late()
    server.admission.begin("quiet", 10.0)()
    assert server.admission.is_overloaded
    # A call that is late by itself takes nothing from others.
    server.admission.begin("quiet", 10.0)
    assert not server.admission.is_crowded_by("quiet")
    for _ in range(4):
        server.admission.begin("impatient", 10.0)
    assert server.admission.is_crowded_by("impatient")
    assert not server.admission.is_crowded_by("quiet")


def test_two_that_flood_get_the_same() -> None:
    server = Server()
    server.run(3.0, {"a": 4_000.0, "b": 1_000.0})
    server.answered.clear()
    server.run(5.0, {"a": 4_000.0, "b": 1_000.0})
    assert server.answered["b"] >= 0.45 * server.answered.total()


def test_after_an_overload_nothing_is_refused_and_the_limit_is_back() -> None:
    server = Server()
    server.run(5.0, {"a": 2_500.0})
    assert server.admission.limit < 1_024
    server.run(2.0, {"a": 250.0})
    server.refused.clear()
    server.run(5.0, {"a": 250.0})
    assert server.refused.total() == 0
    server.now_s += 2.0
    server.run(1.0, {"a": 10.0})
    assert server.admission.limit == 1_024


def test_short_deadlines_are_not_refused_for_ever_after_an_overload() -> None:
    server = Server()
    server.run(5.0, {"a": 2_500.0}, deadline_s=2.0)
    server.run(2.0, {"a": 250.0}, deadline_s=0.1)
    server.refused.clear()
    server.run(5.0, {"a": 250.0}, deadline_s=0.1)
    assert server.refused.total() == 0


def test_without_overload_nothing_is_refused_however_many_run() -> None:
    server = Server()
    # 900 calls at once that wait for something else, each a tenth of its time.
    ends = [server.admission.begin("a", 10.0) for _ in range(900)]
    server.now_s += 1.0
    for end in ends:
        end()
    assert server.admission.limit == 1_024


def test_calls_without_a_deadline_are_never_late() -> None:
    server = Server()
    for _ in range(50):
        end = server.admission.begin("a", None)
        server.now_s += 60.0
        end()
    server.admission.begin("a", None)
    assert server.admission.limit == 1_024


def test_streams_count_towards_the_most_calls_and_say_nothing_about_overload() -> None:
    server = Server(max_calls=20)
    streams = [server.admission.begin_stream(name) for name in ("a", "b") for _ in range(10)]
    streams.pop()()
    end = server.admission.begin("a", 1.0)
    full = "20 calls are running, and --max-calls is 20"
    with pytest.raises(Overloaded, match=full):
        server.admission.begin_stream("c")
    with pytest.raises(Overloaded, match=full):
        server.admission.begin("c", 1.0)
    server.now_s += 3_600.0
    for one in streams:
        one()
    end()
    assert server.admission.limit == 20


def test_a_refusal_names_the_tenant_and_a_time_to_retry() -> None:
    server = Server()
    server.run(5.0, {"a": 5_000.0})
    begin: Callable[[], EndCall] = lambda: server.admission.begin("a", 0.5)  # noqa: E731
    with pytest.raises(Overloaded, match="of tenant 'a' are running") as caught:
        for _ in range(2_000):
            begin()
    assert caught.value.retry_after_s


def test_of_many_refusals_all_but_a_few_are_held_back() -> None:
    now_s = [0.0]
    admission = Admission(10, lambda: now_s[0])
    assert [admission.hold_s() for _ in range(12)] == [0.0] * 10 + [0.25] * 2
    now_s[0] = 0.1
    assert admission.hold_s() == 0.0


def test_half_of_the_calls_may_be_streams_of_one_tenant() -> None:
    server = Server(max_calls=20)
    streams = [server.admission.begin_stream("a") for _ in range(10)]
    with pytest.raises(Overloaded, match="10 streams of tenant 'a' are open"):
        server.admission.begin_stream("a")
    server.admission.begin("a", 1.0)()
    server.admission.begin_stream("b")()
    streams.pop()()
    server.admission.begin_stream("a")


def test_calls_that_only_wait_do_not_keep_others_from_being_answered() -> None:
    server = Server()
    # Of one tenant, 48 calls at a time that take all of their time and no processor.
    waiting: list[tuple[float, EndCall]] = []
    answered = 0
    for step in range(2_000):
        server.now_s += 0.005
        for at_s, end in [one for one in waiting if one[0] <= server.now_s]:
            end()
            waiting.remove((at_s, end))
        while len(waiting) < 48:
            try:
                waiting.append((server.now_s + 0.2, server.admission.begin("b", 0.2)))
            except Overloaded:
                break
        if step % 8 == 0:
            # Short deadlines, and quick answers.
            server.admission.begin("a", 0.1)()
            answered += 1
    assert answered == 250
