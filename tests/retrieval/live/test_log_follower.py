"""A follower handles deltas that are unavailable or do not match the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from nearline.errors import NotReady, SnapshotMismatch
from nearline.retry import Backoff
from nearline.store.snapshot import PARTITIONS
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live import log_follower, published_state
from retrieval.live.delta_protocol import (
    ChangeUnusable,
    DeltaStats,
    FollowedDelta,
    FollowedShard,
)
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import LiveState, LiveView
from retrieval.protocols.watermark import AppliedState, Watermark
from tests.retrieval.live.followed_collection import Followed, in_partition, upsert
from tests.waits import until


class ExternalStore:
    """A fake external store that receives changes and outlives its deltas.

    at: The position applied. error: Raised by `apply`. faults: Raised by it once each, in order.
    unusable: Id whose changes cannot be applied. refused: Why no delta can be created.
    closed: Number of deltas that were closed. expired_at: The times that deltas expired at.
    """

    def __init__(self) -> None:
        self.at = Watermark("")
        self.seen: list[str] = []
        self.error: Exception | None = None
        self.faults: list[Exception] = []
        self.unusable = ""
        self.refused = ""
        self.reported_set_backs: list[str] = []
        self.expired_at: list[datetime] = []
        self.tried = self.made = self.closed = 0
        self.live: LiveState | None = None

    async def new_delta(self, start: Watermark, log: ChangeLog | None) -> FollowedDelta:
        """Creates a delta that continues from the current position."""
        self.made += 1
        if self.refused and log is not None:
            raise SnapshotMismatch(self.refused)
        if self.at.log_id != start.log_id:
            self.at = start
        return _Delta(self)

    def attach(self, live: LiveState) -> None:
        """Receives the live state."""
        self.live = live

    @property
    def applied(self) -> AppliedState:
        """The applied state reported to searches."""
        assert self.live is not None
        return self.live.view.applied

    def covers(self, head: Watermark) -> bool:
        return self.applied.watermark.covers(head)


class _Delta:
    def __init__(self, there: ExternalStore) -> None:
        self._there = there

    @property
    def view(self) -> LiveView:
        return LiveView(AppliedState(self._there.at))

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        there = self._there
        there.tried += 1
        if there.error is not None:
            raise there.error
        if there.faults:
            raise there.faults.pop(0)
        for entry in entries:
            if there.unusable and entry.change.document_id == there.unusable:
                raise ChangeUnusable(entry)
            there.seen.append(entry.change.document_id)
            there.at = there.at.advanced({entry.partition: entry.position})

    async def expire(self, now: datetime) -> None:
        self._there.expired_at.append(now)

    def set_back(self, reason: str) -> None:
        self._there.reported_set_backs.append(reason)

    def stats(self) -> DeltaStats:
        return DeltaStats(0, 0, 0, len(self._there.seen), 0)

    async def close(self) -> None:
        self._there.closed += 1


class ExternalCollection:
    """A collection whose follower applies changes to the fake store."""

    def __init__(self, root: Path) -> None:
        self.one = Followed(root)
        self.there = ExternalStore()
        self.following: LogFollower | None = None

    async def begin(self) -> LogFollower:
        """Starts a follower; the caller must await `ready`."""
        shard = FollowedShard(
            number=0,
            partitions=tuple(range(PARTITIONS)),
            new_delta=self.there.new_delta,
            attach=self.there.attach,
        )
        following = self.following = await self.one.live.begin(self.one.snapshot, [shard])
        assert following is not None
        return following


@pytest_asyncio.fixture(name="external_collection")
async def give_external_collection(tmp_path: Path) -> AsyncIterator[ExternalCollection]:
    """Returns a collection, which is closed afterwards."""
    opened = ExternalCollection(tmp_path)
    yield opened
    await opened.one.close()


async def test_changes_that_a_delta_contains_are_not_read_again(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    names = in_partition(5, 4)
    for name in names:
        await one.write(upsert(name))
    there.at = Watermark(one.log.log_id).advanced({5: 3})
    await (await external_collection.begin()).ready()
    assert there.seen == names[3:]
    await one.write(upsert("d0"))
    await until(lambda: there.seen == [names[3], "d0"])


async def test_an_unavailable_delta_is_retried_and_reported(
    external_collection: ExternalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, there = external_collection.one, external_collection.there
    monkeypatch.setattr(published_state, "_STALE_AFTER_S", 0.0)
    await (await external_collection.begin()).ready()
    there.error = NotReady("the other server is away")
    least = await one.write(upsert("d0"))
    await until(lambda: there.tried > 2)
    assert "the other server is away" in there.applied.stale
    assert there.live is not None and not there.live.reached(least)
    there.error = None
    await there.live.wait(least, None)
    await until(lambda: not there.applied.stale)
    assert (there.seen, there.made) == (["d0"], 1)
    # Whoever releases it waits for nothing.
    there.error = NotReady("away again")
    await one.write(upsert("d1"))
    await until(lambda: there.tried > 5)
    assert external_collection.following is not None
    async with asyncio.timeout(1):
        await one.live.end(external_collection.following)


async def test_the_lag_is_the_age_of_the_oldest_change_that_is_not_applied(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    following = await external_collection.begin()
    await following.ready()
    assert following.lag_s == 0
    there.error = NotReady("the other server is away")
    before = time.time()
    await one.write(upsert("d0"))
    await until(lambda: there.tried > 0)
    # The log counts in microseconds.
    assert 0 < following.lag_s < time.time() - before + 0.001
    there.error = None
    await until(lambda: following.lag_s == 0)
    assert there.seen == ["d0"]


async def test_a_new_state_is_in_service_while_it_catches_up(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    there.error = NotReady("the other server is away")
    head = await one.write(upsert("d0"))
    ready = asyncio.ensure_future((await external_collection.begin()).ready())
    await until(lambda: there.live is not None)
    assert there.applied.stale and not ready.done()
    there.error = None
    await ready
    assert there.applied.watermark.covers(head)
    await until(lambda: not there.applied.stale)


async def test_a_state_that_caught_up_is_replaced_only_by_another_one_that_has(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    lost, later = in_partition(5, 2)
    following = await external_collection.begin()
    await following.ready()
    await one.write(upsert(lost))
    await until(lambda: there.seen == [lost])
    in_service = following._published.deltas
    # Other deltas begin before the first change, and cannot be applied to for now.
    there.at, there.error = Watermark(one.log.log_id), NotReady("the other server is away")
    one.log.set_back(5, 0)
    head = await one.write(upsert(later))
    await until(lambda: there.made == 2 and there.tried > 3)
    assert following._published.deltas is in_service
    there.error = None
    await until(lambda: following._published.caught_up)
    assert following._published.deltas is not in_service
    assert there.applied.watermark.covers(head)


async def test_a_delta_that_does_not_match_the_log_is_rejected_or_reported(
    external_collection: ExternalCollection, tmp_path: Path
) -> None:
    there = external_collection.there
    there.refused = "changes of another log; export it again"
    with pytest.raises(SnapshotMismatch, match="export it again"):
        await (await external_collection.begin()).ready()
    stale = ExternalCollection(tmp_path / "stale")
    stale.one.live._allow_stale = True
    stale.there.refused = there.refused
    await (await stale.begin()).ready()
    assert "export it again" in stale.there.applied.stale
    stale.there.refused = ""
    await until(lambda: not stale.there.applied.stale)
    await stale.one.close()


async def test_a_log_that_was_set_back_is_reported_and_the_state_stays_in_service(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    name = in_partition(5, 1)[0]
    await (await external_collection.begin()).ready()
    await one.write(upsert(name))
    await until(lambda: there.seen == [name])
    there.refused = "the log has lost what is in here; export it again"
    one.log.set_back(5, 0)
    await until(lambda: "export it again" in there.applied.stale)
    assert there.reported_set_backs and "set back" in there.reported_set_backs[0]
    assert there.seen == [name]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_follower_that_stops_fails_waiting_requests_and_closes_all_deltas(
    external_collection: ExternalCollection, replaced: bool
) -> None:
    one, there = external_collection.one, external_collection.there
    following = await external_collection.begin()
    await following.ready()
    head = await one.write(upsert(in_partition(5, 1)[0]))
    await until(lambda: there.applied.watermark.covers(head))
    there.error = NotReady("the other server is away")
    if replaced:
        # Other deltas are to replace the published ones, and cannot catch up.
        there.at = Watermark(one.log.log_id)
        one.log.set_back(5, 0)
    head = await one.write(upsert(in_partition(5, 2)[1]), upsert("d0"))
    await until(lambda: there.tried > 2 and there.made == 1 + replaced)
    assert there.live is not None
    waiting = asyncio.ensure_future(there.live.wait(head, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    await one.live.end(following)
    with pytest.raises(NotReady, match="is being unloaded; try again"):
        async with asyncio.timeout(1):
            await waiting
    assert there.closed == there.made


async def test_an_error_that_nobody_expected_is_reported_until_it_is_over(
    external_collection: ExternalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, there = external_collection.one, external_collection.there
    monkeypatch.setattr(published_state, "_STALE_AFTER_S", 0.0)
    following = await external_collection.begin()
    await following.ready()
    there.error = ZeroDivisionError("a bug")
    head = await one.write(upsert("d0"))
    await until(lambda: following.problem is not None)
    assert following.problem is not None and not following.problem.log_unavailable
    assert following.problem.reason == "ZeroDivisionError: a bug"
    assert following.problem.reason in there.applied.stale
    there.error = None
    await there.live.wait(head, None)  # type: ignore[union-attr]
    await until(lambda: not there.applied.stale)
    assert following.problem is None


async def test_a_tick_expires_documents_and_refreshes_progress_and_staleness(
    external_collection: ExternalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, there = external_collection.one, external_collection.there
    following = await external_collection.begin()
    await following.ready()
    await one.write(upsert("d0"))
    await until(lambda: there.seen == ["d0"])
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    await following.tick(noon)
    assert there.expired_at[-1] == noon
    assert following.progress()[0].changes == 1
    there.error = NotReady("the other server is away")
    await one.write(upsert("d1"))
    await until(lambda: following.problem is not None)
    assert not there.applied.stale
    # From here on, the loop does not turn before the tick is over.
    monkeypatch.setattr(published_state, "_STALE_AFTER_S", 0.0)
    await following.tick(noon)
    assert "the other server is away" in there.applied.stale


async def test_a_failure_after_a_recovery_is_retried_as_soon_as_the_first_one(
    external_collection: ExternalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second failure in a row would wait for hours.
    monkeypatch.setattr(log_follower, "_BACKOFF", Backoff(0.001, factor=1e8))
    one, there = external_collection.one, external_collection.there
    await (await external_collection.begin()).ready()
    for name in ("d0", "d1"):
        there.faults.append(ZeroDivisionError("a bug"))
        head = await one.write(upsert(name))
        await until(partial(there.covers, head))
    assert (there.seen, there.faults) == (["d0", "d1"], [])


async def test_where_a_change_was_skipped_another_one_is_applied_after_a_set_back(
    external_collection: ExternalCollection,
) -> None:
    one, there = external_collection.one, external_collection.there
    bad, good = in_partition(5, 2)
    there.unusable = bad
    await (await external_collection.begin()).ready()
    await one.write(upsert(bad))
    # In its place nothing is deleted.
    await until(lambda: there.seen == [""])
    there.at = Watermark(one.log.log_id)
    one.log.set_back(5, 0)
    await one.write(upsert(good))
    await until(lambda: there.seen[1:] == [good])
