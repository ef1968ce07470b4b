"""Upkeep removes snapshots that nothing needs, so that the change log can be trimmed."""

from __future__ import annotations

import os
from datetime import timedelta

from nearline.store.snapshot import Store
from retrieval.changelog.retention import trim_log
from retrieval.snapshots.retention import MIN_AGE, plan_prune, prune
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.conftest import TEXTS

NOW = timedelta(0)


def prune_snapshots(store: Store, keep: int, min_age: timedelta = NOW) -> list[str]:
    """Prunes as upkeep does; returns the names of what was removed."""
    planned = plan_prune(store, "default", keep, min_age=min_age)
    prune(store, "default", planned)
    return [one.name for one in planned if not one.kept]


async def _import(living: Living, number: int) -> str:
    living.clock.now += 10
    corpus = living.corpus({"only": f"Only {number}."}, living.clock.now, f"corpus{number}")
    return (await living.build(corpus)).snapshot_id


async def test_a_snapshot_whose_manifest_is_damaged_is_removed_like_the_others(
    living: Living,
) -> None:
    made = []
    for number in range(4):
        await living.upsert(f"n{number}", f"New {number}.")
        made.append(await living.compact())
    manifest = living.store.snapshots_folder("default") / made[1] / "manifest.json"
    manifest.write_text("{torn")
    assert await trim_log(living.store, living.log) == 0
    assert made[1] in prune_snapshots(living.store, 0)
    # It holds back the log no longer: the target of a rollback lacks only the last change.
    assert await trim_log(living.store, living.log) == 3


async def test_of_the_others_as_many_stay_as_are_wanted(living: Living) -> None:
    unneeded = {living.manifest.snapshot_id}
    made = [await _import(living, number) for number in range(4)]
    unneeded.update(made[:2])
    removed = prune_snapshots(living.store, 1)
    assert len(removed) == 2 and set(removed) < unneeded
    assert set(living.store.snapshot_ids("default")) == {*unneeded, *made} - set(removed)


async def test_young_snapshots_and_those_in_use_stay(living: Living) -> None:
    before = living.manifest.snapshot_id
    made = [await _import(living, number) for number in range(3)]
    assert prune_snapshots(living.store, 0, MIN_AGE) == []
    removed = prune_snapshots(living.store, 0)
    assert set(removed) == {before, made[0]}
    assert set(living.store.snapshot_ids("default")) == {made[1], made[2]}


async def test_the_log_drops_what_only_removed_builds_lacked(living: Living) -> None:
    for number in range(3):
        await living.upsert(f"n{number}", f"New {number}.")
        await _import(living, number)
    assert await trim_log(living.store, living.log) == 0
    prune_snapshots(living.store, 0)
    # The target of a rollback lacks the last change.
    assert await trim_log(living.store, living.log) == 2


async def test_the_log_is_not_trimmed_past_the_beginning_of_a_running_build(
    living: Living,
) -> None:
    async def trimmed() -> int:
        prune_snapshots(living.store, 0)
        await trim_log(living.store, living.log)
        return sum((await living.log.state()).trimmed.positions)

    class Slow(HashEmbedder):
        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not compacted:
                for number in range(3):
                    living.clock.now += 10
                    await living.upsert(f"n{number}", f"New {number}.")
                    compacted.append(await living.compact())
                    # Of "before" alone.
                    assert await trimmed() <= 1
            return await super().embed(*args, **kwargs)

    compacted: list[str] = []
    await living.upsert("before", "Before.")
    texts = {**TEXTS, "fresh": "Fresh."}
    await living.build(living.corpus(texts, 15, "longer"), embedder=Slow(), shards=2)
    assert len(compacted) == 3
    # What was written meanwhile is not in the snapshot: replicas replay it.
    assert living.texts() == {**texts, "before": "Before."}
    assert living.store.files.names("default/holds") == []
    await living.compact()
    assert set(living.texts()) == {*texts, "before", "n0", "n1", "n2"}
    await living.upsert("last", "Last.")
    await living.compact()
    assert await trimmed() == 4


async def test_the_remains_of_killed_builds_are_removed_but_no_running_one(living: Living) -> None:
    folder = living.store.snapshots_folder("default")
    dead, running = folder / ".tmp-20200101T000000Z-000000", folder / ".tmp-20200101T000000Z-000001"
    upload = folder / "20200101T000000Z-000002"  # Without a manifest.
    for one in (dead, running, upload):
        one.mkdir()
    os.utime(dead, (0, 0))
    current = living.manifest.snapshot_id
    removed = prune_snapshots(living.store, 9, MIN_AGE)
    assert sorted(removed) == sorted([dead.name, upload.name])
    assert {path.name for path in folder.iterdir()} == {current, running.name}
