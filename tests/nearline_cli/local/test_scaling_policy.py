"""Tests of the scaling policy: bounds, scaling up and down, and a steady load."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from nearline.contract import IngestWorker, QueueState
from nearline.errors import SettingsError
from nearline_cli.local.scaling_policy import ScalingOptions, ScalingPolicy

START = datetime(2026, 1, 1, tzinfo=UTC)


def queue(lag: int, *shown: float) -> QueueState:
    """Returns a queue with a lag, and workers that show so many documents/s each."""
    workers = [
        IngestWorker(worker_id=f"w{n}", in_hand=0, documents_per_s=per_s, start_time=START)
        for n, per_s in enumerate(shown)
    ]
    return QueueState(waiting=lag, documents_per_s=sum(shown), workers=workers)


def follow(policy: ScalingPolicy, states: Iterable[QueueState], workers: int = 0) -> list[int]:
    """Lets the policy decide once a second; gives the number of workers after each time."""
    numbers = []
    for now, state in enumerate(states):
        workers = policy.decide(state, workers, float(now)).workers
        numbers.append(workers)
    return numbers


LOOKS = st.lists(
    st.tuples(st.integers(0, 100_000), st.lists(st.floats(0, 1e4), max_size=5)), max_size=40
)


@given(LOOKS, st.integers(0, 5), st.integers(0, 5))
def test_the_number_is_within_bounds_and_positive_while_documents_wait(
    looks: list[tuple[int, list[float]]], least: int, more: int
) -> None:
    policy = ScalingPolicy(ScalingOptions(min_workers=least, max_workers=least + more))
    workers = least
    for now, (lag, shown) in enumerate(looks):
        workers = policy.decide(queue(lag, *shown), workers, float(now)).workers
        assert least <= workers <= least + more
        assert workers or not lag or not least + more


@given(LOOKS, st.integers(0, 100_000), st.integers(0, 100_000), st.lists(st.floats(0, 1e4)))
def test_a_longer_queue_never_means_fewer_workers(
    looks: list[tuple[int, list[float]]], lag: int, more: int, shown: list[float]
) -> None:
    decided = []
    for one in (lag, lag + more):
        policy = ScalingPolicy(ScalingOptions(max_workers=64))
        before = follow(policy, (queue(of, *rates) for of, rates in looks))
        workers = before[-1] if before else 0
        decided.append(policy.decide(queue(one, *shown), workers, float(len(looks))).workers)
    assert decided[0] <= decided[1]


@pytest.mark.parametrize(
    ("lag", "wanted"), [(0, 0), (1, 1), (500, 1), (501, 2), (1_000, 2), (1_001, 3), (90_000, 8)]
)
def test_it_scales_up_at_once_to_finish_in_ten_seconds(lag: int, wanted: int) -> None:
    # 50 documents/s are assumed.
    policy = ScalingPolicy(ScalingOptions(max_workers=8))
    assert policy.decide(queue(lag), 0, 0.0).workers == wanted


def test_a_faster_speed_counts_at_once_and_a_slower_one_only_of_busy_workers() -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=8))
    reason = policy.decide(queue(7), 0, 0.0).reason
    assert reason == "7 documents left at 50.0/s per worker, within 10 s"
    follow(policy, [queue(1, 80.0, 10.0)])
    assert policy.documents_per_s == 80.0
    for now in range(1, 60):
        policy.decide(replace(queue(0, 4.0), in_hand=3), 1, float(now))
    assert policy.documents_per_s == 80.0
    for now in range(60, 120):
        policy.decide(queue(10, 4.0), 1, float(now))
    assert policy.documents_per_s == pytest.approx(4.0, abs=0.5)
    assert policy.decide(queue(200, 4.0), 1, 120.0).workers == 5


def test_work_between_two_looks_keeps_its_worker_until_it_ends() -> None:
    policy = ScalingPolicy(ScalingOptions())
    # A document every 7 s; nobody ever sees it wait. The speed is the mean of half a minute.
    ended = [second % 7 == 0 and second < 120 for second in range(200)]
    shown = [sum(ended[max(0, n - 29) : n + 1]) / min(30, n + 1) for n in range(200)]
    numbers = follow(policy, [queue(1), *(queue(0, one) for one in shown)])
    assert set(numbers[:121]) == {1}
    # The mean is 0 half a minute after the last one, of second 119.
    assert numbers.index(0) <= 163 and set(numbers[163:]) == {0}


def test_it_scales_to_zero_after_ten_idle_seconds() -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=4))
    states = [queue(2_000)] + [queue(0)] * 12
    assert follow(policy, states) == [4] + [4] * 9 + [4, 0, 0]
    assert follow(ScalingPolicy(ScalingOptions(min_workers=1, max_workers=4)), states)[-2:] == [
        1,
        1,
    ]


def test_new_work_restarts_the_ten_seconds() -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=4))
    states = [queue(2_000)] + [queue(0)] * 8 + [queue(1)] + [queue(0)] * 12
    numbers = follow(policy, states)
    # Four are not needed for a little: one is, until nothing was to do for ten seconds.
    assert numbers[9:] == [4, 4, *[1] * 9, 0, 0]


def test_unseen_history_stops_no_worker() -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=4))
    assert follow(policy, [queue(2_000), queue(0)]) == [4, 4]
    policy.forget()
    # The door was away for long; what was to do meanwhile is not known.
    assert [policy.decide(queue(0), 4, 100.0 + n).workers for n in range(11)] == [4] * 10 + [0]


def test_bounds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="--min-workers 3 and --max-workers 2"):
        ScalingOptions(min_workers=3, max_workers=2)


@dataclass
class SimulatedQueue:
    """A queue that workers of one speed work on; they start `delay_s` after they were wanted."""

    per_s: float
    delay_s: int = 2
    waiting: float = 0.0
    shown: float = 0.0

    def run(self, policy: ScalingPolicy, arriving: Iterable[float]) -> list[int]:
        """Returns the number of workers after each second."""
        numbers = [0] * (self.delay_s + 1)
        ended: list[float] = []
        for now, arrived in enumerate(arriving):
            working = min(numbers[-1 - self.delay_s :])
            self.waiting += arrived
            done = min(self.waiting, working * self.per_s)
            self.waiting -= done
            ended.append(done)
            shown = sum(ended[-30:]) / min(30, len(ended))
            # Of what came in during this second, some is in somebody's hands.
            state = queue(
                math.ceil(self.waiting), *([shown / working] * working if working else [])
            )
            state = replace(state, in_hand=1 if done else 0)
            numbers.append(policy.decide(state, numbers[-1], float(now)).workers)
        return numbers[self.delay_s + 1 :]


@given(st.floats(5, 500), st.floats(0.02, 4.5))
def test_a_steady_load_reaches_a_steady_sufficient_number(per_s: float, load: float) -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=6))
    world = SimulatedQueue(per_s)
    numbers = world.run(policy, [load * per_s] * 900)
    late = numbers[600:]
    changes = sum(a != b for a, b in pairwise(late))
    assert changes <= 1, late
    assert late[-1] >= math.floor(load)
    # Nothing waits for much longer than the target.
    assert world.waiting <= 12 * per_s * late[-1]


def test_a_burst_adds_workers_and_removes_them_again() -> None:
    policy = ScalingPolicy(ScalingOptions(max_workers=6))
    world = SimulatedQueue(100.0)
    arriving = [60.0] * 40 + [300.0] * 20 + [60.0] * 60 + [0.0] * 50
    numbers = world.run(policy, arriving)
    assert max(numbers[:40]) == 1
    assert max(numbers[40:80]) >= 3
    assert numbers[119] <= 2
    assert numbers[-1] == 0
    assert world.waiting == 0
