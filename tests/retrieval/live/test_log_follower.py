"""What following a log makes of a delta that is away, or does not go with the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.snapshot import PARTITIONS
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.live import published_state
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.log_follower import LogFollower
from retrieval.live.view import LiveState, LiveView
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import Watermark
from tests.retrieval.live.followed_collection import Followed, in_partition, upsert


class Elsewhere:
    """What changes are written into, somewhere else; it stays over deltas.

    at: How far it is. error: What keeps it from more. refused: Why no delta can be made.
    """

    def __init__(self) -> None:
        self.at = Watermark("")
        self.seen: list[str] = []
        self.error: NearlineError | None = None
        self.refused = ""
        self.told_set_back: list[str] = []
        self.tried = self.made = 0
        self.live: LiveState | None = None

    async def new_delta(self, start: Watermark, log: ChangeLog | None) -> FollowedDelta:
        """Makes a delta that goes on from where this is."""
        self.made += 1
        if self.refused and log is not None:
            raise SnapshotMismatch(self.refused)
        if self.at.log_id != start.log_id:
            self.at = start
        return _Delta(self)

    def attach(self, live: LiveState) -> None:
        """Takes what tells how far it is."""
        self.live = live

    @property
    def applied(self) -> AppliedState:
        """What searches are told."""
        assert self.live is not None
        return self.live.view.applied


class _Delta:
    def __init__(self, there: Elsewhere) -> None:
        self._there = there

    @property
    def view(self) -> LiveView:
        return LiveView(AppliedState(self._there.at))

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        there = self._there
        there.tried += 1
        if there.error is not None:
            raise there.error
        for entry in entries:
            there.seen.append(entry.change.document_id)
            there.at = there.at.advanced({entry.partition: entry.position})

    async def expire(self, now: datetime) -> None: ...

    def set_back(self, reason: str) -> None:
        self._there.told_set_back.append(reason)

    def stats(self) -> DeltaStats:
        return DeltaStats(0, 0, 0, len(self._there.seen), 0)

    async def close(self) -> None: ...


class Opened:
    """A log that is followed for such a delta."""

    def __init__(self, root: Path) -> None:
        self.one = Followed(root)
        self.there = Elsewhere()
        self.following: LogFollower | None = None

    async def begin(self) -> LogFollower:
        """Begins to follow; `ready` is to be awaited."""
        shard = FollowedShard(
            number=0,
            partitions=tuple(range(PARTITIONS)),
            new_delta=self.there.new_delta,
            attach=self.there.attach,
        )
        following = self.following = await self.one.live.begin(self.one.snapshot, [shard])
        assert following is not None
        return following


@pytest_asyncio.fixture(name="opened_elsewhere")
async def give_opened_elsewhere(tmp_path: Path) -> AsyncIterator[Opened]:
    """Returns one; it is let go of afterwards."""
    opened = Opened(tmp_path)
    yield opened
    await opened.one.close()


async def until(reached: object) -> None:
    assert callable(reached)
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.005)


async def test_what_a_delta_has_is_not_read_again(opened_elsewhere: Opened) -> None:
    one, there = opened_elsewhere.one, opened_elsewhere.there
    names = in_partition(5, 4)
    for name in names:
        await one.write(upsert(name))
    there.at = Watermark(one.log.log_id).advanced({5: 3})
    await (await opened_elsewhere.begin()).ready()
    assert there.seen == names[3:]
    await one.write(upsert("d0"))
    await until(lambda: there.seen == [names[3], "d0"])


async def test_a_delta_that_is_away_is_asked_again_and_that_is_told(
    opened_elsewhere: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, there = opened_elsewhere.one, opened_elsewhere.there
    monkeypatch.setattr(published_state, "_STALE_AFTER_S", 0.0)
    await (await opened_elsewhere.begin()).ready()
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
    assert opened_elsewhere.following is not None
    async with asyncio.timeout(1):
        await one.live.end(opened_elsewhere.following)


async def test_a_delta_that_does_not_go_with_the_log_is_refused_or_told(
    opened_elsewhere: Opened, tmp_path: Path
) -> None:
    there = opened_elsewhere.there
    there.refused = "changes of another log; export it again"
    with pytest.raises(SnapshotMismatch, match="export it again"):
        await (await opened_elsewhere.begin()).ready()
    stale = Opened(tmp_path / "stale")
    stale.one.live._allow_stale = True
    stale.there.refused = there.refused
    await (await stale.begin()).ready()
    assert "export it again" in stale.there.applied.stale
    stale.there.refused = ""
    await until(lambda: not stale.there.applied.stale)
    await stale.one.close()


async def test_a_log_that_was_set_back_is_told_and_what_is_served_stays(
    opened_elsewhere: Opened,
) -> None:
    one, there = opened_elsewhere.one, opened_elsewhere.there
    name = in_partition(5, 1)[0]
    await (await opened_elsewhere.begin()).ready()
    await one.write(upsert(name))
    await until(lambda: there.seen == [name])
    there.refused = "the log has lost what is in here; export it again"
    one.log.set_back(5, 0)
    await until(lambda: "export it again" in there.applied.stale)
    assert there.told_set_back and "set back" in there.told_set_back[0]
    assert there.seen == [name]
