"""Tests of the progress of a build, as lines of text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from index_builder.execution.progress import StageClock, TextProgress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Holds the time of the clock that progress reads."""
    time = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time[0])
    monkeypatch.setattr("index_builder.execution.progress.time", clock)
    return time


def test_a_stage_that_fails_has_no_summary(now: list[float]) -> None:
    lines: list[str] = []
    clock = StageClock(TextProgress(lines.append))
    with pytest.raises(KeyboardInterrupt), clock.stage("embed", 100, "chunks") as advance:
        now[0] = 10.0
        advance(40)
        raise KeyboardInterrupt
    assert lines == ["embed: 40 of 100 chunks, 4/s, 15 s left"]


def test_work_of_an_earlier_run_is_no_part_of_the_rate(now: list[float]) -> None:
    lines: list[str] = []
    with StageClock(TextProgress(lines.append)).stage("embed", 100, "chunks", 60) as advance:
        now[0] = 10.0
        advance(20)
        advance(20)
    assert lines == ["embed: 80 of 100 chunks, 2/s, 10 s left", "embed: 40 chunks in 10.0 s"]


def test_the_time_that_is_left_falls_between_two_reports(now: list[float]) -> None:
    progress = TextProgress(lambda line: None)
    assert progress.line() == ""
    with StageClock(progress).stage("behaviour", 10, "steps") as advance:
        assert progress.line() == "behaviour: 0 of 10 steps"
        now[0] = 20.0
        advance(2)
        assert progress.line() == "behaviour: 2 of 10 steps, 80 s left"
        now[0] = 45.0
        assert progress.line() == "behaviour: 2 of 10 steps, 55 s left"
    with StageClock(progress).stage("release gate"):
        assert progress.line() == "release gate"
