"""A build that failed is repeated later; one that the gate refused, when there is something new."""

from __future__ import annotations

from typing import Any

import pytest

from index_builder.releases import failed_builds
from index_builder.releases.failed_builds import BuildInputs, FailedBuilds

HOUR_S = 3600.0
SCORE = "drift of score: 0.4 is above 0.25"
FIRST = BuildInputs(reason=SCORE, epoch=7, changes=10, documents=1_000)


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(failed_builds, "time", clock)
    return clock


def test_pauses_double_up_to_six_hours_and_end_with_another_snapshot(clock: _Clock) -> None:
    failed = FailedBuilds()
    assert not failed.pauses("shop", 7)
    for count in range(1, 12):
        assert failed.add("shop", FIRST, refused=False) == count
        pause_s = min(6 * HOUR_S, 300.0 * 2 ** (count - 1))
        assert not failed.pauses("shop", 8)
        clock.now_s += pause_s - 1
        assert failed.pauses("shop", 7)
        clock.now_s += 1
        assert not failed.pauses("shop", 7)
    assert failed.add("shop", FIRST, refused=True) == 12
    failed.forget("shop")
    assert not failed.pauses("shop", 7)
    assert failed.add("shop", FIRST, refused=True) == 1


def test_the_same_data_are_not_tried_again_for_two_days_after_a_refusal(clock: _Clock) -> None:
    failed = FailedBuilds()
    assert failed.news("shop", FIRST) == ""
    failed.add("shop", FIRST, refused=True)
    again = FIRST._replace(reason="drift of score: 0.9 is above 0.25", changes=20)
    clock.now_s += 48 * HOUR_S - 1
    assert failed.news("shop", again) is None
    assert failed.news("shop", again._replace(reason="")) is None
    assert failed.news("other", again) == ""
    clock.now_s += 1
    assert failed.news("shop", again) == "the last refusal by the gate was two days ago"


@pytest.mark.parametrize(
    ("changed", "news"),
    [
        ({"changes": 21}, "since the last refusal by the gate, 11 changes were made"),
        ({"epoch": 8}, "since the last refusal by the gate, another snapshot became current"),
        (
            {"reason": "drift of query: 0.4 is above 0.25"},
            "the last refusal by the gate was of a build for another reason",
        ),
    ],
)
def test_other_data_are_tried_sooner_and_the_reason_says_what_is_new(
    clock: _Clock, changed: dict[str, Any], news: str
) -> None:
    failed = FailedBuilds()
    failed.add("shop", FIRST, refused=True)
    assert failed.news("shop", FIRST) is None
    assert failed.news("shop", FIRST._replace(**changed)) == news


def test_a_failure_that_is_no_refusal_is_repeated_without_news(clock: _Clock) -> None:
    failed = FailedBuilds()
    failed.add("shop", FIRST, refused=False)
    assert failed.news("shop", FIRST) == ""
