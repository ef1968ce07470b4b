"""Tests the circuit breaker, alone with a manual clock and around a model."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, strategies as st
from prometheus_client import REGISTRY

from generation.backends.circuit_breaker import (
    BreakerPolicy,
    BreakerState,
    CircuitBreaker,
    GuardedModel,
)
from generation.protocols.chat_model import ChatError, ChatFailure, ChatLimits
from tests.generation.backends.model_calls import LIMITS, PROMPT, ask, error_from
from tests.generation.backends.scripted_backend import Script, ScriptedModel, Stall, answer_script

POLICY = BreakerPolicy(window_s=60, failures=3, share=0.5, open_s=10, longest_s=35, lasting_s=300)


class Clock:
    """A manual clock."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def fails(failure: ChatFailure, retry_after_s: float | None = None) -> Script:
    """Returns the script of a failure before any text."""
    return [ChatError(failure, "scripted", retry_after_s=retry_after_s)]


def permit(breaker: CircuitBreaker) -> int:
    """Returns a permit; fails if there is none."""
    given = breaker.admit()
    assert given is not None
    return given


def state_of(breaker: CircuitBreaker) -> BreakerState:
    """Returns the state; a function, because mypy would narrow the attribute."""
    return breaker.state


def opened(clock: Clock) -> CircuitBreaker:
    """Returns a breaker that three failures have opened."""
    breaker = CircuitBreaker(POLICY, clock)
    for _ in range(3):
        breaker.fail(permit(breaker))
    assert state_of(breaker) is BreakerState.OPEN
    return breaker


def test_opens_at_the_failure_share_within_the_window() -> None:
    clock = Clock()
    breaker = CircuitBreaker(POLICY, clock)
    for _ in range(4):
        breaker.succeed(permit(breaker))
    for _ in range(3):
        breaker.fail(permit(breaker))
    # 3 of 7 are less than half.
    assert state_of(breaker) is BreakerState.CLOSED
    breaker.fail(permit(breaker))
    assert state_of(breaker) is BreakerState.OPEN
    assert breaker.wait_s == 10


def test_outcomes_before_the_window_are_dropped() -> None:
    clock = Clock()
    breaker = CircuitBreaker(POLICY, clock)
    breaker.fail(permit(breaker))
    breaker.fail(permit(breaker))
    clock.now += 60
    breaker.fail(permit(breaker))
    assert state_of(breaker) is BreakerState.CLOSED


def test_one_probe_is_admitted_and_its_success_closes_the_breaker() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 9.9
    assert breaker.admit() is None
    clock.now += 0.1
    probe = permit(breaker)
    assert state_of(breaker) is BreakerState.HALF_OPEN
    assert breaker.admit() is None and breaker.wait_s > 0
    breaker.succeed(probe)
    assert state_of(breaker) is BreakerState.CLOSED
    # The failures that opened it count no more.
    for _ in range(2):
        breaker.fail(permit(breaker))
    assert state_of(breaker) is BreakerState.CLOSED


def test_failed_probes_double_the_open_time_up_to_the_maximum() -> None:
    clock = Clock()
    breaker = opened(clock)
    for wait_s in (20, 35, 35):
        clock.now += breaker.wait_s
        breaker.fail(permit(breaker))
        assert breaker.wait_s == wait_s
    clock.now += breaker.wait_s
    breaker.succeed(permit(breaker))
    for _ in range(3):
        breaker.fail(permit(breaker))
    assert breaker.wait_s == 10


def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.release(permit(breaker))
    assert state_of(breaker) is BreakerState.HALF_OPEN and breaker.wait_s == 0
    breaker.succeed(permit(breaker))
    assert state_of(breaker) is BreakerState.CLOSED


def test_outcomes_from_an_earlier_state_are_ignored() -> None:
    clock = Clock()
    breaker = CircuitBreaker(POLICY, clock)
    old = [permit(breaker) for _ in range(3)]
    for _ in range(3):
        breaker.fail(permit(breaker))
    breaker.succeed(old[0])
    assert state_of(breaker) is BreakerState.OPEN
    clock.now += 10
    probe = permit(breaker)
    breaker.fail(old[1])
    breaker.release(old[2])
    breaker.succeed(old[0])
    assert state_of(breaker) is BreakerState.HALF_OPEN and breaker.admit() is None
    breaker.succeed(probe)
    assert state_of(breaker) is BreakerState.CLOSED


def test_retry_after_opens_the_breaker_in_every_state() -> None:
    clock = Clock()
    breaker = CircuitBreaker(POLICY, clock)
    first, second = permit(breaker), permit(breaker)
    breaker.fail(first, retry_after_s=7)
    assert state_of(breaker) is BreakerState.OPEN and breaker.wait_s == 7
    breaker.fail(second, retry_after_s=5)
    assert breaker.wait_s == 7
    clock.now += 7
    probe = permit(breaker)
    breaker.fail(second, retry_after_s=50)
    breaker.succeed(probe)
    assert state_of(breaker) is BreakerState.OPEN and breaker.wait_s == 50


@given(steps=st.lists(st.tuples(st.sampled_from("asfrw"), st.integers(0, 3)), max_size=60))
def test_never_sticks_open_and_never_admits_two_probes(steps: list[tuple[str, int]]) -> None:
    """For any events: while half-open, at most one permit is out."""
    clock = Clock()
    breaker = CircuitBreaker(POLICY, clock)
    out: list[int] = []
    for step, number in steps:
        if step == "w":
            clock.now += 7 * number
        elif step == "a":
            got = breaker.admit()
            if got is not None:
                out.append(got)
        elif out:
            permitted = out.pop(number % len(out))
            if step == "s":
                breaker.succeed(permitted)
            elif step == "f":
                breaker.fail(permitted)
            else:
                breaker.release(permitted)
        if breaker.state is BreakerState.HALF_OPEN:
            probe = max(out, default=-1)
            assert out.count(probe) <= 1 or breaker.wait_s == 0
    for permitted in out:
        breaker.release(permitted)
    clock.now += 35
    assert breaker.admit() is not None


async def test_answers_pass_through_and_are_counted() -> None:
    model = ScriptedModel("passing", [answer_script("a", "b"), answer_script("c", length=True)])
    guarded = GuardedModel(model)
    assert (await ask(guarded)).texts == ["a", "b"]
    came = await ask(guarded)
    assert came.end is not None and came.end.length
    assert [prompt for prompt, _ in model.asked] == [PROMPT, PROMPT]
    assert counted("passing") == {"stop": 1, "length": 1}
    assert (
        REGISTRY.get_sample_value(
            "nearline_generation_model_first_text_seconds_count", {"model": "passing"}
        )
        == 2
    )


async def test_a_failing_model_is_skipped_then_probed() -> None:
    clock = Clock()
    model = ScriptedModel("failing", [*[fails(ChatFailure.SERVER)] * 3, answer_script("back")])
    guarded = GuardedModel(model, policy=POLICY, clock=clock)
    for _ in range(3):
        assert (await error_from(guarded)).failure is ChatFailure.SERVER
    error = await error_from(guarded)
    assert error.failure is ChatFailure.OPEN and error.retry_after_s == 10
    assert len(model.asked) == 3
    assert gauge("failing") == BreakerState.OPEN.value
    clock.now += 10
    assert (await ask(guarded)).texts == ["back"]
    assert gauge("failing") == BreakerState.CLOSED.value
    assert counted("failing") == {"server": 3, "open": 1, "stop": 1}


@pytest.mark.parametrize(
    ("failure", "retry_after_s", "away_s"),
    [
        (ChatFailure.QUOTA, None, 300),
        (ChatFailure.UNAUTHORISED, None, 300),
        (ChatFailure.QUOTA, 20.0, 20),
        (ChatFailure.RATE_LIMITED, 7.0, 7),
        (ChatFailure.SERVER, 3.0, 3),
    ],
)
async def test_one_lasting_failure_opens_the_breaker(
    failure: ChatFailure, retry_after_s: float | None, away_s: float
) -> None:
    guarded = GuardedModel(
        ScriptedModel("one", [fails(failure, retry_after_s)]), policy=POLICY, clock=Clock()
    )
    assert (await error_from(guarded)).failure is failure
    error = await error_from(guarded)
    assert error.failure is ChatFailure.OPEN and error.retry_after_s == away_s


@pytest.mark.parametrize(
    "failure", [ChatFailure.DEADLINE, ChatFailure.TOO_LONG, ChatFailure.REFUSED_REQUEST]
)
async def test_failures_not_caused_by_the_model_are_not_counted(failure: ChatFailure) -> None:
    guarded = GuardedModel(ScriptedModel("blameless", [fails(failure)]), policy=POLICY)
    for _ in range(10):
        assert (await error_from(guarded)).failure is failure
    assert guarded.state is BreakerState.CLOSED


async def test_a_failure_after_texts_counts_too() -> None:
    guarded = GuardedModel(ScriptedModel("cutting", [["Three"]]), policy=POLICY)
    for _ in range(3):
        came = await ask(guarded)
        assert came.texts == ["Three"]
        assert came.error is not None and came.error.failure is ChatFailure.CUT
    assert guarded.state is BreakerState.OPEN


async def test_a_cancelled_probe_is_not_counted() -> None:
    clock, stall = Clock(), Stall()
    model = ScriptedModel(
        "probing", [*[fails(ChatFailure.SERVER)] * 3, ["Three", stall], answer_script("back")]
    )
    guarded = GuardedModel(model, policy=POLICY, clock=clock)
    for _ in range(3):
        await error_from(guarded)
    clock.now += 10
    probe = asyncio.create_task(ask(guarded))
    await stall.reached.wait()
    assert (await error_from(guarded)).failure is ChatFailure.OPEN
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert model.running == 0
    assert guarded.state is BreakerState.HALF_OPEN
    assert (await ask(guarded)).texts == ["back"]
    assert counted("probing") == {"server": 3, "open": 1, "abandoned": 1, "stop": 1}


async def test_a_consumer_that_stops_at_the_end_counts_as_success() -> None:
    guarded = GuardedModel(ScriptedModel("whole", [answer_script("a")]))
    events = guarded.write(PROMPT, LIMITS)
    await anext(events)
    await anext(events)
    await events.aclose()
    assert counted("whole") == {"stop": 1}


async def test_concurrent_requests_are_limited() -> None:
    stall = Stall()
    model = ScriptedModel("crowded", [["a", stall, *answer_script("b")], answer_script("c")])
    guarded = GuardedModel(model, max_concurrent=1, place_s=0.02)
    first = asyncio.create_task(ask(guarded))
    await stall.reached.wait()
    error = await error_from(guarded)
    assert error.failure is ChatFailure.RATE_LIMITED
    assert len(model.asked) == 1 and guarded.state is BreakerState.CLOSED
    stall.go.set()
    assert (await first).texts == ["a", "b"]
    assert (await ask(guarded)).texts == ["c"]
    assert counted("crowded") == {"stop": 2, "busy": 1}


async def test_waiting_for_a_place_reduces_the_timeout_of_the_answer() -> None:
    stall = Stall()
    clock = Clock()
    model = ScriptedModel("waiting", [["a", stall, *answer_script("b")], answer_script("c")])
    guarded = GuardedModel(model, max_concurrent=1, place_s=60, clock=clock)
    first = asyncio.create_task(ask(guarded))
    await stall.reached.wait()
    second = asyncio.create_task(ask(guarded, limits=ChatLimits(max_tokens=5, timeout_s=20)))
    await asyncio.wait([second], timeout=0)
    clock.now += 4
    stall.go.set()
    await asyncio.gather(first, second)
    assert [limits.timeout_s for _, limits in model.asked] == [20, 16]


async def test_a_breaker_that_opens_while_requests_wait_for_a_place_refuses_them() -> None:
    stall = Stall()
    model = ScriptedModel("opens", [[stall, *fails(ChatFailure.QUOTA)], answer_script("late")])
    guarded = GuardedModel(model, policy=POLICY, max_concurrent=1, place_s=60, clock=Clock())
    first, second = (asyncio.create_task(ask(guarded)) for _ in range(2))
    await stall.reached.wait()
    stall.go.set()
    errors = [(await one).error for one in (first, second)]
    assert [one and one.failure for one in errors] == [ChatFailure.QUOTA, ChatFailure.OPEN]
    assert len(model.asked) == 1


def counted(model: str) -> dict[str, float]:
    """Returns the counted attempts of a model, by outcome."""
    return {
        sample.labels["outcome"]: sample.value
        for metric in REGISTRY.collect()
        if metric.name == "nearline_generation_model_attempts"
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["model"] == model
    }


def gauge(model: str) -> float | None:
    """Returns the state that the metric shows."""
    return REGISTRY.get_sample_value("nearline_generation_breaker_state", {"model": model})
