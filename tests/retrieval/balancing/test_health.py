"""Retry budgets, latency averages and replica health, with simulated times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from retrieval.balancing.health import ReplicaHealth, ReplicaState
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.shards.replicas.replica import FadingAverage


@settings(deadline=None)
@given(calls=st.integers(0, 500), tries=st.integers(1, 20))
def test_extra_calls_stay_a_tenth_of_the_calls(calls: int, tries: int) -> None:
    budget = RetryBudget(0.1, floor_per_s=0.0, burst=10.0)
    spent = 0
    for _ in range(calls):
        budget.earn()
        spent += sum(budget.spend(0.0) for _ in range(tries))
    assert spent <= 10 + 0.1 * calls
    # All that is earned can be spent, but for the part of a call that is left over.
    assert spent >= min(calls * tries, 9 + 0.1 * (calls - 1))


def test_a_quiet_shard_may_still_retry_once_a_second() -> None:
    budget = RetryBudget(0.1, floor_per_s=1.0, burst=2.0)
    assert [budget.spend(100.0), budget.spend(100.0), budget.spend(100.0)] == [True, True, False]
    assert not budget.spend(100.5)
    assert budget.spend(101.0)
    # What is saved up has an end.
    assert [budget.spend(900.0) for _ in range(3)] == [True, True, False]


def test_an_average_follows_samples_and_fades_without_them() -> None:
    average = FadingAverage()
    assert average.value(5.0) == 0.0
    average.observe(0.010, 5.0)
    assert average.value(5.0) == 0.010
    average.observe(0.110, 5.0)
    assert average.value(5.0) == pytest.approx(0.9 * 0.010 + 0.1 * 0.110)
    assert average.value(6.0) == pytest.approx(average.value(5.0) / 2.71828, rel=1e-4)


def seen() -> ReplicaHealth:
    health = ReplicaHealth()
    assert health.state(0.0) is ReplicaState.AWAY
    health.record_status()
    assert health.state(0.0) is ReplicaState.READY
    return health


def test_three_failures_in_a_row_eject_and_each_ejection_lasts_twice_as_long() -> None:
    health = seen()
    assert [health.record_failure(10.0, "e") for _ in range(3)] == [False, False, True]
    assert health.state(10.49) is ReplicaState.EJECTED
    assert not health.admits(10.49, 0)
    # Back on trial: one call at a time, and one failure is enough.
    assert health.state(10.5) is ReplicaState.PROBED
    assert health.admits(10.5, 0)
    assert not health.admits(10.5, 1)
    assert health.record_failure(10.5, "e")
    assert health.state(11.49) is ReplicaState.EJECTED
    assert health.admits(11.5, 0)
    health.record_success()
    assert health.admits(11.5, 7)
    assert [health.record_failure(20.0, "e") for _ in range(3)] == [False, False, True]
    assert health.state(20.5) is ReplicaState.PROBED


def test_a_success_resets_the_count_of_failures() -> None:
    health = seen()
    for _ in range(10):
        assert not health.record_failure(1.0, "e")
        assert not health.record_failure(1.0, "e")
        health.record_success()
    assert health.state(1.0) is ReplicaState.READY


def test_the_longest_ejection_is_half_a_minute() -> None:
    health = seen()
    now = 0.0
    for _ in range(20):
        while not health.record_failure(now, "e"):
            pass
        until = next(step for step in range(10_000) if health.admits(now + step / 10, 0)) / 10
        now += until
    assert until == 30.0


def test_a_lost_replica_is_away_until_it_answers_and_then_probed_with_one_call() -> None:
    health = seen()
    health.record_lost("connection refused")
    assert health.state(1e9) is ReplicaState.AWAY
    assert health.reason == "connection refused"
    health.record_status()
    assert health.admits(0.0, 0)
    assert not health.admits(0.0, 1)


def test_one_timed_out_status_ejects_and_two_in_a_row_mean_away() -> None:
    health = seen()
    assert health.record_silence(1.0, "late")
    assert health.state(1.0) is ReplicaState.EJECTED
    health.record_status()
    assert health.record_silence(5.0, "late")
    assert not health.record_silence(5.5, "late")
    assert health.state(1e9) is ReplicaState.AWAY


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["answered", "lost", "silent", "succeeded", "failed"]),
            st.floats(0.0, 40.0),
        ),
        max_size=60,
    )
)
def test_an_answer_and_half_a_minute_always_bring_a_replica_back(
    events: list[tuple[str, float]],
) -> None:
    health, now, ejected_at = ReplicaHealth(), 0.0, -30.0
    for event, passed_s in events:
        now += passed_s
        if event == "answered":
            health.record_status()
        elif event == "lost":
            health.record_lost("gone")
        elif event == "succeeded":
            health.record_success()
        elif (
            health.record_silence(now, "late")
            if event == "silent"
            else health.record_failure(now, "e")
        ):
            ejected_at = now
        assert not (health.away and health.admits(now, 0))
        assert health.away or health.admits(now, 0) or now < ejected_at + 30.0
        assert health.admits(now, 0) == (
            health.state(now) in (ReplicaState.READY, ReplicaState.PROBED)
        )
    health.record_status()
    assert health.admits(now + 30.0, 0)
