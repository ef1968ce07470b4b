"""Predicted time against the caller's deadline."""

from __future__ import annotations

import math

import pytest

from embedding.batcher import RateMeter, admit
from nearline.errors import Overloaded


def ask(
    own: int = 100, lane: int = 0, tenant: int = 0, ahead: int = 0, left_s: float = math.inf
) -> None:
    admit(
        own_tokens=own,
        lane_tokens=lane,
        tenant_tokens=tenant,
        ahead_tokens=ahead,
        max_queued_tokens=1000,
        tokens_per_s=100.0,
        left_s=left_s,
    )


def test_a_request_that_can_be_done_in_time_is_taken() -> None:
    ask(own=100, ahead=300, left_s=4.0)


def test_a_request_that_cannot_is_refused_with_the_time_it_lacks() -> None:
    with pytest.raises(Overloaded, match=r"would take 4\.000 s .* has 3\.000 s left") as caught:
        ask(own=100, ahead=300, left_s=3.0)
    assert caught.value.retry_after_s == pytest.approx(1.0)


def test_a_full_lane_refuses_with_the_time_until_there_is_room() -> None:
    with pytest.raises(Overloaded, match="940 tokens are waiting, at most 1000 may") as caught:
        ask(own=100, lane=940, tenant=10)
    assert caught.value.retry_after_s == pytest.approx(0.5)


def test_a_tenant_may_take_as_much_of_a_lane_as_it_leaves_to_others() -> None:
    ask(own=100, lane=500, tenant=400)
    with pytest.raises(Overloaded, match="its tenant, which has 450 of them") as caught:
        ask(own=100, lane=500, tenant=450)
    assert caught.value.retry_after_s == pytest.approx(0.5)


def test_a_tenant_that_has_nothing_in_a_lane_may_add_a_request_larger_than_the_limit() -> None:
    ask(own=5000)
    ask(own=5000, lane=1000)


def test_the_meter_gives_the_rate_of_busy_time_only() -> None:
    meter = RateMeter()
    assert meter.tokens_per_s == 0.0
    for start in (0.0, 10.0, 20.0):
        meter.started(start)
        meter.finished(500, start + 0.5)
    assert meter.tokens_per_s == pytest.approx(1000.0)


def test_the_meter_counts_two_slots_together_and_follows_a_change() -> None:
    meter = RateMeter(50.0)
    meter.started(0.0)
    for second in range(1, 21):
        meter.started(float(second))
        meter.finished(200, float(second))
    assert meter.tokens_per_s == pytest.approx(200.0, rel=0.01)


def test_the_rate_of_a_model_that_is_busy_for_long_is_trusted() -> None:
    meter = RateMeter()
    meter.started(0.0)
    meter.finished(100, 1.0)
    meter.started(2.0)
    assert meter.rate_to_trust(9.0) == pytest.approx(100.0)
    meter.finished(700, 9.0)
    assert meter.rate_to_trust(9.9) == pytest.approx(100.0)
    assert meter.rate_to_trust(10.1) == 0.0
