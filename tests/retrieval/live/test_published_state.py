"""A problem is logged once, and lasts until it is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace

import pytest

from nearline.times import from_us
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live import published_state
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.progress import LiveState, LiveView
from retrieval.live.published_state import PublishedState
from retrieval.protocols.watermark import AppliedState, Watermark

NOW_S = 1_800_000_000.0


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


class _Delta:
    """Has applied three changes of partition 1 and one of partition 2."""

    view = LiveView(AppliedState(Watermark("log").advanced({1: 3, 2: 1})))

    async def apply(self, entries: Sequence[ChangeEntry]) -> None: ...

    async def expire(self, now: datetime) -> None: ...

    def set_back(self, reason: str) -> None: ...

    def stats(self) -> DeltaStats:
        return DeltaStats(rows=7, dead_rows=2, hidden_rows=4, changes=5, oldest_change_us=6_000_000)

    async def close(self) -> None: ...


async def _new_delta(start: Watermark, log: ChangeLog | None) -> FollowedDelta:
    return _Delta()


def published(attached: list[LiveState]) -> PublishedState:
    """Returns the state of one shard that has caught up with its log."""
    shard = FollowedShard(number=4, partitions=(1, 2), new_delta=_new_delta, attach=attached.append)
    state = PublishedState("shop", "s1", [shard])
    assert state.progress({}) == {}
    assert state.replace([_Delta()], caught_up=True) == ()
    state.stats = [delta.stats() for delta in state.deltas]
    return state


def test_progress_counts_what_the_shard_lacks_in_its_own_partitions() -> None:
    attached: list[LiveState] = []
    (progress,) = published(attached).progress({0: 50, 1: 10, 2: 0}).items()
    number, shard = progress
    assert (number, shard.behind, shard.away_s) == (4, 10 - 3, None)
    assert (shard.rows, shard.dead_rows, shard.hidden_rows, shard.changes) == (5, 2, 4, 5)
    assert shard.oldest_change == from_us(6_000_000)
    assert shard.applied == _Delta.view.applied == attached[0].view.applied


@pytest.mark.parametrize("log_unavailable", [True, False])
def test_a_problem_is_told_to_searches_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch, log_unavailable: bool
) -> None:
    attached: list[LiveState] = []
    state = published(attached)
    stale = []
    for after_s in (0.0, 4.9, 5.0):
        clock = SimpleNamespace(time=lambda now=NOW_S + after_s: now)
        monkeypatch.setattr(published_state, "time", clock)
        state.report_problem("why", log_unavailable=log_unavailable)
        stale.append(attached[0].view.applied.stale)
        # Operators learn at once, and only how long the log itself has been away.
        away_s = pytest.approx(after_s) if log_unavailable else None
        assert state.progress({})[4].away_s == away_s
    assert stale == ["", "", "live changes are not being followed since 2027-01-15T08:00:00Z: why"]
    state.report_recovery()
    assert attached[0].view.applied.stale == ""
    assert state.progress({})[4].away_s is None
    # Searches of a state that has not caught up are told at once.
    state.caught_up = False
    state.publish()
    assert attached[0].view.applied.stale.endswith("snapshot s1 are still being applied")
    monkeypatch.setattr(published_state, "time", SimpleNamespace(time=lambda: NOW_S))
    state.report_problem("why")
    assert attached[0].view.applied.stale.endswith(
        "not being followed since 2027-01-15T08:00:00Z: why"
    )
