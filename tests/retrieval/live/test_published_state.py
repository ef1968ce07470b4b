"""A problem is logged once, and lasts until it is over."""

from __future__ import annotations

import logging

import pytest

from retrieval.live.published_state import PublishedState


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "retrieval.live.published_state")
    state = PublishedState("shop", "s1", [])
    state.report_recovery()
    assert caplog.records == [] and state.problem is None
    state.report_problem("the log is away", log_unavailable=True)
    first = state.problem
    assert first is not None and first[::2] == ("the log is away", True)
    state.report_problem("the log is still away")
    assert state.problem == ("the log is still away", first.since, False)
    state.report_recovery()
    assert state.problem is None
    assert [(one.levelname, one.reason) for one in caplog.records] == [
        ("WARNING", "the log is away"),
        ("INFO", "the log is still away"),
    ]
    # The next outage is another one.
    state.report_problem("the log is away")
    assert len(caplog.records) == 3
