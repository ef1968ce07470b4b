"""The alias follower, with loads that the test completes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from nearline.errors import NearlineError, NotFound, NotReady, SnapshotCorrupt
from nearline.store.snapshot import Store
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.snapshots import aliases
from retrieval.snapshots.follower import AliasFollower
from retrieval.snapshots.loaded_snapshots import LoadedSnapshots
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.waits import until

DOCUMENTS = documents_of(np.ones((2, 2), np.float32))


class Loads:
    """Loads that the test completes; a snapshot with an error never loads."""

    def __init__(self) -> None:
        self.errors: dict[str, NearlineError] = {}
        self.held_up: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.unloaded: list[str] = []
        self.tasks: list[weakref.ref[object]] = []

    async def load(self, snapshot: SnapshotRef) -> str:
        self.asked.append(snapshot.snapshot_id)
        if (event := self.held_up.get(snapshot.snapshot_id)) is not None:
            await event.wait()
        if (error := self.errors.get(snapshot.snapshot_id)) is not None:
            raise error
        return snapshot.snapshot_id

    async def unload(self, collection: str, snapshot_id: str) -> None:
        self.unloaded.append(snapshot_id)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(weakref.ref(task))


class Followed:
    """A store, and a follower that polls it on demand."""

    def __init__(self, root: Path, collections: tuple[str, ...] = ()) -> None:
        self.root, self.store = root, Store(root)
        self.loads = Loads()
        self.now = 0.0
        self.loaded: LoadedSnapshots[str] = LoadedSnapshots(10.0, lambda: self.now)
        self.follower = AliasFollower(
            self.store,
            collections,
            self.loaded,
            load=self.loads.load,
            unload=self.loads.unload,
            poll_s=3600.0,
            clock=lambda: self.now,
        )

    def make(self, *, promote: bool = False, collection: str = "default") -> str:
        return write_snapshot(self.root, DOCUMENTS, promote=promote, collection=collection)

    @property
    def current(self) -> str:
        held = self.loaded.current("default")
        return held.value if held else ""

    async def held_up_at_second(self) -> tuple[str, str]:
        """Serves a snapshot, then promotes another one whose load does not end."""
        first, second = self.make(promote=True), self.make()
        await self.follower.start()
        self.loads.held_up[second] = asyncio.Event()
        aliases.promote(self.store, "default", second)
        await self.follower.poll()
        await until(lambda: second in self.loads.asked)
        return first, second


async def test_a_snapshot_rolled_back_while_loading_never_goes_live(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    first, second = await one.held_up_at_second()
    aliases.roll_back(one.store, "default")
    await one.follower.poll()
    pursuit = one.follower.desired_states["default"]
    await until(lambda: pursuit.served_epoch == 3)
    assert one.current == first
    assert one.loaded.get("default", second) is None
    # Whoever was told to load it is told to let go.
    assert one.loads.unloaded == [second]
    await one.follower.close()


async def test_a_snapshot_loaded_for_a_router_stays_when_the_follower_drops_it(
    tmp_path: Path,
) -> None:
    one = Followed(tmp_path)
    first, second = await one.held_up_at_second()
    # A router asks for it, too, and is the quicker one.
    del one.loads.held_up[second]
    await one.follower.load("default", second)
    aliases.roll_back(one.store, "default")
    await one.follower.poll()
    pursuit = one.follower.desired_states["default"]
    await until(lambda: pursuit.served_epoch == 3)
    assert one.current == first
    assert one.loaded.get("default", second) is not None
    assert one.loads.unloaded == []
    # It goes when its time has come, as ever.
    one.now += 10.0
    await one.follower.poll()
    await until(lambda: one.loads.unloaded == [second])
    await one.follower.close()


async def test_a_failure_keeps_the_old_snapshot_and_is_retried(
    tmp_path: Path,
) -> None:
    one = Followed(tmp_path)
    first, second = one.make(promote=True), one.make()
    await one.follower.start()
    one.loads.errors[second] = NotReady("shard 1 has no replica")
    aliases.promote(one.store, "default", second)
    await one.follower.poll()
    pursuit = one.follower.desired_states["default"]
    await until(lambda: pursuit.has_failed)
    assert (one.current, pursuit.problem) == (first, "NotReady: shard 1 has no replica")
    # Until then what is served is asked for, so that no shard server releases it.
    await until(lambda: one.loads.asked[-1] == first)
    assert one.loads.asked.count(second) == 1
    one.loads.errors.clear()
    one.now += 3600.0
    await one.follower.poll()
    await until(lambda: one.current == second)
    assert not pursuit.has_failed
    one.now += 10.0
    await one.follower.poll()
    await until(lambda: one.loads.unloaded == [first])
    await one.follower.close()


async def test_at_start_a_faulty_snapshot_falls_back_to_an_older_one(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    first, second, third = (one.make(promote=True) for _ in range(3))
    one.loads.errors = {name: SnapshotCorrupt("a byte") for name in (second, third)}
    await one.follower.start()
    assert one.current == first
    pursuit = one.follower.desired_states["default"]
    assert (pursuit.epoch, pursuit.problem) == (3, "SnapshotCorrupt: a byte")
    await one.follower.close()


async def test_at_start_unreachable_servers_do_not_cause_a_fallback(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    first, second = (one.make(promote=True) for _ in range(2))
    one.loads.errors[second] = NotReady("away")
    with pytest.raises(NotReady, match="away"):
        await one.follower.start()
    assert first not in one.loads.asked
    await one.follower.close()


async def test_a_faulty_collection_does_not_block_the_others(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    bad, good = one.make(promote=True, collection="bad"), one.make(promote=True)
    one.loads.errors[bad] = SnapshotCorrupt("a byte")
    await one.follower.start()
    assert one.current == good
    named = Followed(tmp_path, ("bad", "default"))
    named.loads.errors = one.loads.errors
    with pytest.raises(SnapshotCorrupt):
        await named.follower.start()
    (tmp_path / "bad/aliases/0000000002.json").write_text("{")
    new = one.make(promote=True)
    await one.follower.poll()
    await until(lambda: one.current == new)
    for each in (one, named):
        await each.follower.close()


async def test_a_named_collection_without_a_snapshot_is_an_error(tmp_path: Path) -> None:
    one = Followed(tmp_path, ("default", "lost"))
    one.make(promote=True)
    with pytest.raises(NotFound, match="'lost' has no published snapshot"):
        await one.follower.start()


async def test_finished_work_is_not_kept_in_memory(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    for _ in range(3):
        one.follower.forget("default", "s1")
    await until(lambda: len(one.loads.tasks) == 3)
    await until(lambda: gc.collect() >= 0 and not any(task() for task in one.loads.tasks))
    await one.follower.close()


async def test_gauges_of_a_dropped_collection_go_with_it(tmp_path: Path) -> None:
    one = Followed(tmp_path)
    first = one.make(promote=True, collection="dropped")
    await one.follower.start()
    metrics.log_away_seconds.labels("dropped").set(60)

    def gauges() -> set[str]:
        return {
            family.name
            for family in REGISTRY.collect()
            if family.type == "gauge"
            for sample in family.samples
            if sample.labels.get("collection") == "dropped"
        }

    created = REGISTRY.get_sample_value(
        "nearline_retrieval_snapshot_created_timestamp_seconds", {"collection": "dropped"}
    )
    wanted = one.store.manifest("dropped", first).create_time
    assert created == pytest.approx(wanted.seconds + wanted.nanos / 1e9)
    assert {"nearline_retrieval_epoch", "nearline_retrieval_log_away_seconds"} <= gauges()
    aliases.drop(one.store, "dropped")
    await one.follower.poll()
    # Requests that have begun end on it first.
    one.now += 10.0
    await one.follower.poll()
    await until(lambda: not gauges())
    await one.follower.close()
