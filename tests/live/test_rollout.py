"""A snapshot tried beside the current one: who gets it, and how it goes away by itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions, IndexOptions
from nearline import contract as c
from nearline.v1 import release_pb2
from tests.live.rolling import DIM, Rolling, built, rolling
from tests.retrieval.small_snapshots import FORCED
from tests.scale import nightly

pytestmark = pytest.mark.service
# One false alarm in a hundred trials, the default, would fail these tests now and then.
FALSE_ALARM = 1e-6


async def _two(store: Path, rng: np.random.Generator) -> dict[str, str]:
    """Builds two small snapshots with the same ids; gives their stamps, the current one first."""
    vectors = rng.normal(size=(2_000, DIM)).astype(np.float32)
    stamps = {}
    for stamp in ("old", "new"):
        options = BuildOptions(store=str(store), promote=stamp == "old")
        stamps[await built(store, stamp, vectors, options)] = stamp
    return stamps


async def test_users_keep_their_arm_while_the_share_grows_until_it_is_promoted_and_back(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    stamps = await _two(tmp_path, rng)
    old, new = stamps
    queries = rng.normal(size=(100, DIM)).astype(np.float32)
    async with rolling(tmp_path, queries, stamps) as world:
        callers, admin = world.callers, world.admin
        assert (await callers.ask("u")).info.arm is None  # type: ignore[union-attr]
        limits = release_pb2.RolloutLimits(false_alarm=FALSE_ALARM)
        rollout = release_pb2.Rollout(limits=limits)
        await admin.split(new, 0.3, why="smaller", gate=FORCED, rollout=rollout)
        await callers.until(world.tried)
        few = await _arms(world)
        # Five deviations of a binomial of 300 by 0.3 are 40.
        assert abs(Counter(few.values())[c.Arm.CANARY] - 90) < 40
        assert await _arms(world) == few
        epoch = world.watch.status.in_force.epoch
        await admin.split(new, 0.7)
        await callers.until(lambda: world.tried() and world.watch.status.in_force.epoch > epoch)
        many = await _arms(world)
        kept = {user for user, arm in few.items() if arm is c.Arm.CANARY}
        assert kept < {user for user, arm in many.items() if arm is c.Arm.CANARY}
        await admin.promote(new)
        await callers.until(lambda: callers.snapshots[new] > 0 and world.ended())
        callers.snapshots.clear()
        await callers.until(lambda: callers.asked % 200 == 0)
        await admin.roll_back()
        await callers.until(lambda: callers.snapshots[old] > 0)
        assert (callers.failed, callers.mixed) == (Counter(), 0)


async def _arms(world: Rolling) -> dict[str, c.Arm | None]:
    """Asks for 300 users; looks whether the lists say which arm gave them."""
    arms = {}
    for number in range(300):
        reply = await world.callers.ask(f"user-{number}")
        assert reply is not None and "." in reply.info.list_id
        mark = reply.info.list_id.split(".")[1]
        assert mark.endswith("c" if reply.info.arm is c.Arm.CANARY else "b")
        arms[f"user-{number}"] = reply.info.arm
    return arms


async def test_in_shadow_all_is_answered_by_the_current_one_and_compared(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    stamps = await _two(tmp_path, rng)
    old, new = stamps
    queries = rng.normal(size=(100, DIM)).astype(np.float32)
    async with rolling(tmp_path, queries, stamps) as world:
        limits = release_pb2.RolloutLimits(false_alarm=FALSE_ALARM)
        rollout = release_pb2.Rollout(
            split_by=release_pb2.SPLIT_BY_REQUEST, shadow=True, limits=limits
        )
        await world.admin.split(new, 0.5, rollout=rollout, gate=FORCED)
        await world.callers.until(lambda: world.watch.status.compared >= 50)
        assert world.callers.snapshots == {old: world.callers.asked}
        # The same vectors under the same ids.
        assert world.watch.status.overlap == 1.0
        await world.admin.split("")
        await world.callers.until(world.ended)
        assert not world.callers.failed


@nightly
@pytest.mark.timeout(180)
async def test_a_slower_snapshot_goes_away_by_itself(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(10_000, DIM)).astype(np.float32)
    stamps = {}
    for stamp, width in (("quick", 16), ("slow", 4_096)):
        options = BuildOptions(
            store=str(tmp_path),
            index=IndexOptions(factory="HNSW32,Flat", ef_search=width),
            promote=stamp == "quick",
        )
        stamps[await built(tmp_path, stamp, vectors, options)] = stamp
    async with rolling(tmp_path, vectors[:500] + 0.1, stamps) as world:
        await _backs_out(world, "latency")


@pytest.mark.timeout(180)
async def test_a_snapshot_that_fails_goes_away_by_itself_and_costs_no_answer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(500, DIM)).astype(np.float32)
    stamps = {}
    for stamp in ("worded", "wordless"):
        worded = stamp == "worded"
        options = BuildOptions(store=str(tmp_path), lexical=worded, promote=worded)
        stamps[await built(tmp_path, stamp, vectors, options)] = stamp
    async with rolling(tmp_path, vectors, stamps) as world:
        world.callers.mode = c.SearchMode.LEXICAL
        await _backs_out(world, "errors")
        # What it failed at the other one answered.
        assert set(world.callers.snapshots) == {next(iter(stamps))}


@pytest.mark.timeout(180)
async def test_a_snapshot_that_finds_less_goes_away_by_itself(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(5_000, DIM)).astype(np.float32)
    stamps = {}
    for stamp, width in (("wide", 128), ("narrow", 10)):
        options = BuildOptions(
            store=str(tmp_path),
            index=IndexOptions(factory="HNSW8,Flat", ef_construction=40, ef_search=width),
            promote=stamp == "wide",
        )
        stamps[await built(tmp_path, stamp, vectors, options)] = stamp
    queries = rng.normal(size=(500, DIM)).astype(np.float32)
    async with rolling(tmp_path, queries, stamps) as world:
        # Where nothing is said, it must find what its own manifest promises: no more than that.
        await _backs_out(world, "recall", min_recall=0.9)
        canary = world.callers.arms[c.Arm.CANARY]
        assert canary < 0.2 * world.callers.asked


async def _backs_out(world: Rolling, test: str, **limits: float) -> None:
    """Tries the second snapshot at a tenth of the requests until it is gone, for a reason."""
    new = list(world.callers.stamps)[1]
    strict = release_pb2.RolloutLimits(false_alarm=FALSE_ALARM, recall_sample=1.0, **limits)
    rollout = release_pb2.Rollout(split_by=release_pb2.SPLIT_BY_REQUEST, limits=strict)
    epoch = (await world.admin.split(new, 0.1, rollout=rollout, gate=FORCED)).epoch
    await world.callers.until(lambda: world.watch.status.in_force.epoch >= epoch)
    await world.callers.until(world.ended, most_s=100)
    record = world.store.alias_in_force("default")
    assert record.why.startswith(f"backed out automatically: {test}: canary "), record.why
    assert (record.current, record.canary) == (next(iter(world.callers.stamps)), "")
    assert (world.callers.failed, world.callers.mixed) == (Counter(), 0)
