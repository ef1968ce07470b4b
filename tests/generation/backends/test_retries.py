"""Tests retries."""

from __future__ import annotations

import dataclasses

import pytest

from generation.backends.circuit_breaker import BreakerState, GuardedModel
from generation.backends.factory import RetryingModel
from generation.protocols.chat_model import ChatError, ChatFailure
from nearline.retry import Backoff
from tests.generation.backends.model_calls import LIMITS, ask
from tests.generation.backends.scripted_backend import Script, ScriptedModel, answer_script
from tests.generation.backends.test_circuit_breaker import Clock, fails

GOOD = answer_script("Three")


class Pauses:
    """Records pauses without waiting; advances the clock, if any."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.seconds: list[float] = []
        self._clock = clock

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self._clock is not None:
            self._clock.now += seconds


def retrying(scripts: list[Script], pauses: Pauses) -> tuple[RetryingModel, ScriptedModel]:
    """Returns a retrying model without jitter, and the wrapped model."""
    model = ScriptedModel("retried", scripts)
    return RetryingModel(model, pause=pauses, backoff=Backoff(0.25)), model


@pytest.mark.parametrize(
    "failure", [ChatFailure.CONNECTION, ChatFailure.RATE_LIMITED, ChatFailure.SERVER]
)
async def test_transient_failures_are_retried(failure: ChatFailure) -> None:
    pauses = Pauses()
    model, inner = retrying([fails(failure), fails(failure), GOOD], pauses)
    assert (await ask(model)).texts == ["Three"]
    assert pauses.seconds == [0.25, 0.5]
    timeouts = [limits.timeout_s for _, limits in inner.asked]
    assert timeouts == sorted(timeouts, reverse=True) and timeouts[0] <= LIMITS.timeout_s


async def test_a_request_is_retried_at_most_twice() -> None:
    pauses = Pauses()
    model, inner = retrying([fails(ChatFailure.SERVER)], pauses)
    came = await ask(model)
    assert came.error is not None and came.error.failure is ChatFailure.SERVER
    assert len(inner.asked) == 3 and len(pauses.seconds) == 2


@pytest.mark.parametrize(
    "failure",
    sorted(
        set(ChatFailure) - {ChatFailure.CONNECTION, ChatFailure.RATE_LIMITED, ChatFailure.SERVER},
        key=str,
    ),
)
async def test_other_failures_are_not_retried(failure: ChatFailure) -> None:
    model, inner = retrying([fails(failure), GOOD], Pauses())
    came = await ask(model)
    assert came.error is not None and came.error.failure is failure
    assert len(inner.asked) == 1


async def test_nothing_is_retried_after_the_first_text() -> None:
    cut: Script = ["Three", ChatError(ChatFailure.SERVER, "scripted")]
    model, inner = retrying([cut, GOOD], Pauses())
    came = await ask(model)
    assert came.texts == ["Three"] and came.error is not None
    assert len(inner.asked) == 1


async def test_retry_after_is_obeyed() -> None:
    pauses = Pauses()
    model, _ = retrying([fails(ChatFailure.RATE_LIMITED, 2.0), GOOD], pauses)
    assert (await ask(model)).texts == ["Three"]
    (seconds,) = pauses.seconds
    assert 2.0 < seconds < 2.1


@pytest.mark.parametrize(("retry_after_s", "timeout_s"), [(60.0, 120.0), (2.0, 1.0)])
async def test_too_long_a_pause_raises_the_error(retry_after_s: float, timeout_s: float) -> None:
    pauses = Pauses()
    model, _ = retrying([fails(ChatFailure.RATE_LIMITED, retry_after_s), GOOD], pauses)
    came = await ask(model, limits=dataclasses.replace(LIMITS, timeout_s=timeout_s))
    assert came.error is not None and came.error.retry_after_s == retry_after_s
    assert pauses.seconds == []


async def test_pauses_double_with_jitter_of_half() -> None:
    spans = []
    for _ in range(200):
        pauses = Pauses()
        await ask(
            RetryingModel(ScriptedModel("retried", [fails(ChatFailure.SERVER)]), pause=pauses)
        )
        spans.append(pauses.seconds)
    for mean, drawn in zip((0.25, 0.5), zip(*spans, strict=True), strict=True):
        assert mean / 2 <= min(drawn) < 0.6 * mean and 1.4 * mean < max(drawn) <= 1.5 * mean


async def test_with_a_breaker_the_waiting_request_becomes_the_probe() -> None:
    clock = Clock()
    inner = ScriptedModel("probed", [fails(ChatFailure.RATE_LIMITED, 2.0), GOOD])
    guarded = GuardedModel(inner, clock=clock)
    model = RetryingModel(guarded, pause=Pauses(clock))
    assert (await ask(model)).texts == ["Three"]
    assert guarded.state is BreakerState.CLOSED


async def test_an_open_breaker_after_a_failure_raises_the_failure() -> None:
    pauses = Pauses()
    # The clock stands still, so the breaker stays open.
    guarded = GuardedModel(
        ScriptedModel("shut", [fails(ChatFailure.RATE_LIMITED, 2.0)]), clock=Clock()
    )
    model = RetryingModel(guarded, pause=pauses)
    first, second = await ask(model), await ask(model)
    assert first.error is not None and first.error.failure is ChatFailure.RATE_LIMITED
    assert second.error is not None and second.error.failure is ChatFailure.OPEN
    assert len(pauses.seconds) == 1


async def test_close_closes_the_wrapped_model() -> None:
    inner = ScriptedModel("closed", [GOOD])
    await RetryingModel(GuardedModel(inner)).close()
    assert inner.closed
