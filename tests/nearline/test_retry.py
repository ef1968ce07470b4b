"""Retries: what is retried, how often, and after which waits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from nearline.errors import (
    DeadlineExceeded,
    FeedBlocked,
    NearlineError,
    NotApplied,
    NotFound,
    NotReady,
    Overloaded,
)
from nearline.retry import Backoff, retry, retry_while_overloaded, retry_while_unavailable


class Clock:
    """Time that passes only during sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the clock and the sleep of the module."""
    clock = Clock()
    monkeypatch.setattr("nearline.retry.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


def failing(*errors: NearlineError) -> Callable[[], Awaitable[str]]:
    """Returns a call that raises these errors in turn, then succeeds."""
    remaining = iter(errors)

    async def call() -> str:
        if (error := next(remaining, None)) is not None:
            raise error
        return "reply"

    return call


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert list(itertools.islice(backoff.delays(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_delays_grow_by_the_factor() -> None:
    assert Backoff(2.0, factor=1.5).delay_s(2) == 4.5


def test_a_delay_stays_finite_after_very_many_failures() -> None:
    assert Backoff(1.0, 60.0).delay_s(100_000) == 60.0


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 1.0), (1.0, 3.0)])
def test_jitter_scales_each_delay(
    monkeypatch: pytest.MonkeyPatch, drawn: float, expected: float
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: low + (high - low) * drawn)
    assert Backoff(2.0, jitter=(0.5, 1.5)).delay_s(0) == expected


async def test_a_call_is_retried_until_it_succeeds(clock: Clock) -> None:
    call = failing(NotReady("away"), NotReady("away"))
    assert await retry(call, on=NotReady, delays=(1.0, 2.0)) == "reply"
    assert clock.waits == [1.0, 2.0]


async def test_the_last_error_is_raised_when_the_delays_run_out(clock: Clock) -> None:
    call = failing(NotReady("first"), NotReady("second"))
    with pytest.raises(NotReady, match="second"):
        await retry(call, on=NotReady, delays=(1.0,))
    assert clock.waits == [1.0]


async def test_other_errors_are_not_retried(clock: Clock) -> None:
    with pytest.raises(NotFound):
        await retry(failing(NotFound("none")), on=NotReady, delays=itertools.repeat(1.0))
    assert clock.waits == []


async def test_a_subclass_can_be_excluded(clock: Clock) -> None:
    call = failing(NotReady("away"), NotApplied("behind"))
    with pytest.raises(NotApplied):
        await retry(call, on=NotReady, unless=NotApplied, delays=itertools.repeat(1.0))
    assert clock.waits == [1.0]


async def test_a_time_named_by_the_service_replaces_the_delay(clock: Clock) -> None:
    call = failing(NotReady("away", retry_after_s=5.0), NotReady("away"))
    await retry(call, on=NotReady, delays=(1.0,))
    assert clock.waits == [5.0, 1.0]


async def test_a_time_named_by_the_service_can_be_ignored(clock: Clock) -> None:
    call = failing(NotReady("away", retry_after_s=5.0))
    await retry(call, on=NotReady, delays=(1.0,), heed_retry_after=False)
    assert clock.waits == [1.0]


async def test_no_wait_goes_beyond_the_timeout(clock: Clock) -> None:
    call = failing(*[NotReady("away")] * 9)
    with pytest.raises(NotReady):
        await retry(call, on=NotReady, delays=itertools.repeat(2.0), timeout_s=5.0)
    assert clock.waits == [2.0, 2.0]


async def test_failures_are_reported_when_a_retry_follows(clock: Clock) -> None:
    reported: list[str] = []
    with pytest.raises(NotReady, match="second"):
        await retry(
            failing(NotReady("first"), NotReady("second")),
            on=NotReady,
            delays=(1.0,),
            on_failure=lambda error: reported.append(error.message),
        )
    assert reported == ["first"]


async def test_an_overloaded_service_is_called_again_when_it_says(clock: Clock) -> None:
    call = failing(*[Overloaded("full", retry_after_s=0.25)] * 3)
    assert await retry_while_overloaded(call) == "reply"
    assert clock.waits == [0.25] * 3


async def test_overload_without_a_time_to_return_is_raised(clock: Clock) -> None:
    with pytest.raises(Overloaded):
        await retry_while_overloaded(failing(Overloaded("full")))


async def test_overload_beyond_the_timeout_is_raised(clock: Clock) -> None:
    with pytest.raises(Overloaded):
        await retry_while_overloaded(failing(Overloaded("full", retry_after_s=3.0)), timeout_s=2.0)


async def test_a_feed_block_is_not_waited_for_since_somebody_must_act(clock: Clock) -> None:
    for waiting in (retry_while_overloaded, retry_while_unavailable):
        with pytest.raises(FeedBlocked):
            await waiting(failing(FeedBlocked("Redis has 1 MiB free")))
    assert clock.waits == []


async def test_a_service_that_is_away_is_given_up_after_a_minute(clock: Clock) -> None:
    call = failing(*[NotReady("away"), DeadlineExceeded("late")] * 40)
    with pytest.raises(NearlineError):
        await retry_while_unavailable(call)
    assert clock.waits == [1.0] * 59


async def test_a_service_that_is_overloaded_is_not_away(clock: Clock) -> None:
    away, full = [NotReady("away")] * 50, [Overloaded("full", retry_after_s=9.0)] * 2
    assert await retry_while_unavailable(failing(*away, *full, *away)) == "reply"
    assert clock.waits == [1.0] * 50 + [9.0] * 2 + [1.0] * 50
