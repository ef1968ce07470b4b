"""The log says when the queue goes away and comes back, not how often it was tried meanwhile."""

from __future__ import annotations

import logging
import time

import pytest

from index_builder.ingest.availability import AvailabilityLog


def test_each_change_of_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = AvailabilityLog(logging.getLogger("test"))
    log.succeeded()
    for _ in range(2):
        for _ in range(5):
            log.failed("Redis does not answer")
        for _ in range(5):
            log.succeeded()
    assert caplog.messages == ["queue unavailable", "queue available again"] * 2


def test_the_time_that_the_queue_was_unavailable_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    now_s = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    log = AvailabilityLog(logging.getLogger("test"))
    log.failed("Redis does not answer")
    now_s += 2.5
    log.failed("Redis does not answer")
    now_s += 5.0
    log.succeeded()
    assert vars(caplog.records[-1])["away_s"] == 7.5
