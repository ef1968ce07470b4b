"""Tests of durations as people write them, and of the time that is left of some work."""

from __future__ import annotations

import random

import pytest

from nearline.durations import Duration, RemainingTime, parse_duration
from nearline.errors import InvalidRequest


def test_durations_are_parsed() -> None:
    times = {"90": 90, "90s": 90, "1.5m": 90, "24h": 86_400, " 7d ": 604_800, "0": 0, "500ms": 0.5}
    assert {text: parse_duration(text, "--ttl") for text in times} == times
    for text in ("", "soon", "-1s", "1w", "1h30m", "1e3", "٣s", "9" * 400):
        with pytest.raises(InvalidRequest, match="write 500ms, 10s, 15m, 24h or 7d") as caught:
            parse_duration(text, "--result-ttl")
        assert caught.value.field == "result_ttl"


def test_a_duration_is_shown_as_people_write_it() -> None:
    shown = {0: "0s", 0.25: "250ms", 10: "10s", 90: "90s", 120: "2m", 7200: "2h", 172800: "2d"}
    assert {seconds: str(Duration(seconds)) for seconds in shown} == shown


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_at_a_steady_rate_it_is_the_time_that_is_left(clock: Clock) -> None:
    left = RemainingTime(clock)
    assert left.seconds() is None
    for second in range(1, 100):
        clock.now += 1
        left.update(10 * second, 1_000)
        if second >= 2:
            assert left.seconds() == pytest.approx(max(100 - second, 1))


def test_it_counts_down_between_reports_and_stays_above_zero(clock: Clock) -> None:
    left = RemainingTime(clock)
    clock.now += 10
    left.update(10, 30)
    shown = []
    for _ in range(25):
        shown.append(left.seconds())
        clock.now += 1
    assert shown[:20] == [float(20 - n) for n in range(20)] and shown[20:] == [1.0] * 5


def test_it_rises_only_if_it_was_wrong_by_a_third(clock: Clock) -> None:
    draw = random.Random(1)
    for _ in range(50):
        left, done, last = RemainingTime(clock), 0.0, float("inf")
        for _ in range(200):
            clock.now += draw.choice((0.1, 1.0, 20.0))
            done += draw.choice((0, 1, 30))
            left.update(done, 10_000)
            if (now := left.seconds()) is not None:
                assert 1.0 <= now <= last or now > 4 / 3 * last
                last = now


def test_of_work_that_becomes_slower_it_takes_the_recent_rate(clock: Clock) -> None:
    left = RemainingTime(clock)
    clock.now += 2
    left.update(100, 10_000)
    for second in range(40):
        clock.now += 1
        left.update(100 + second, 10_000)
    # 1 per second lately, and more than 3 since the beginning.
    assert left.seconds() == pytest.approx(10_000 - 139)
