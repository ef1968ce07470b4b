"""The feed block: from what is free to what is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, strategies as st
from prometheus_client import REGISTRY

from nearline import contract as c
from nearline.errors import FeedBlocked
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.snapshots.memory import MemoryLimit
from retrieval.users.states import UserStates
from retrieval.writes.feed_block import (
    DISK,
    MEMORY,
    REDIS,
    REOPEN,
    FeedBlock,
    ResourceState,
    Usage,
    WatchedResource,
    disk_resource,
    memory_resource,
)
from tests.retrieval.writable_collection import written
from tests.waits import until

MIB, GIB = 1 << 20, 1 << 30


def usage(free: int, total: int, place: str = "Redis") -> Usage:
    return Usage(place, free, total)


class Source:
    """A resource whose usage a test sets; an error is raised instead.

    during: Called while it is read.
    """

    def __init__(self, *usages: Usage, name: str = REDIS, limit: float = 0.85) -> None:
        self.usages: Sequence[Usage] = usages
        self.error: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        self.resource = WatchedResource(name=name, limit=limit, remedy="free some", read=self.read)

    async def read(self) -> Sequence[Usage]:
        if self.error is not None:
            raise self.error
        self.during()
        return self.usages


def state_of(usage: Usage, limit: float, name: str = REDIS, *, blocked: bool) -> ResourceState:
    state = Source(name=name, limit=limit).resource.judge([usage], blocked=blocked)
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("name", "limit", "total", "needed"),
    [
        (REDIS, 0.75, 512 * MIB, 128 * MIB),
        # More than a GiB need not be free, however large it is.
        (REDIS, 0.85, 64 * GIB, GIB),
        (DISK, 0.90, 20 * GIB, 2 * GIB),
        (DISK, 0.90, 1_000 * GIB, 4 * GIB),
        (MEMORY, 0.75, 2 * GIB, GIB // 2),
        (MEMORY, 0.90, 256 * GIB, GIB),
        (DISK, 1.0, 1_000 * GIB, 0),
    ],
)
def test_a_resource_blocks_below_the_free_bytes_it_needs_and_opens_above_more(
    name: str, limit: float, total: int, needed: int
) -> None:
    for blocked, least in ((False, needed), (True, int(REOPEN * needed))):
        assert not state_of(usage(least, total), limit, name, blocked=blocked).problem
        if needed:
            assert state_of(usage(least - 1, total), limit, name, blocked=blocked).problem
        assert state_of(usage(least, total), limit, name, blocked=blocked).needed_bytes == least


@given(
    limit=st.floats(0.05, 1.0),
    total=st.integers(1, 4 << 40),
    shares=st.lists(st.floats(0, 1), min_size=1),
)
def test_a_resource_that_stays_between_its_two_marks_does_not_change(
    limit: float, total: int, shares: list[float]
) -> None:
    blocked = False
    for share in shares:
        free = int(share * total)
        before, blocked = (
            blocked,
            bool(state_of(usage(free, total), limit, DISK, blocked=blocked).problem),
        )
        low = state_of(usage(free, total), limit, DISK, blocked=False).needed_bytes
        high = state_of(usage(free, total), limit, DISK, blocked=True).needed_bytes
        assert 0 <= low <= high
        assert blocked == (free < low or (before and free < high))


def test_of_several_limits_the_tightest_counts_and_an_unknown_one_never() -> None:
    resource = Source(name=MEMORY, limit=0.9).resource
    # The machine has more room than the control group, though a larger share of it is used.
    machine, group = usage(5 * GIB, 256 * GIB), usage(GIB // 8, 4 * GIB)
    state = resource.judge([machine, group], blocked=False)
    assert state is not None
    assert (state.free_bytes, state.total_bytes) == (group.free, group.total)
    assert state.problem
    assert resource.judge([], blocked=True) is None
    assert resource.judge([usage(0, 0)], blocked=True) is None


async def test_the_error_names_figures_limit_setting_and_remedy() -> None:
    source = Source(usage(60 * MIB, 512 * MIB))
    block = FeedBlock([source.resource])
    block.check("upserts")  # Nothing is known yet.
    await block.measure()
    refused = _metric("refusals_total")
    with pytest.raises(FeedBlocked) as caught:
        block.check("upserts")
    assert caught.value.message == (
        "upserts are refused, deletes are not: Redis has 60.0 MiB of 512.0 MiB free, and 76.8 MiB "
        "must be (--feed-block-redis 0.85): free some"
    )
    # Waiting does not help: streams and commands end with the remedy.
    assert (caught.value.status, caught.value.retry_after_s) == ("RESOURCE_EXHAUSTED", None)
    block.check("interactions", only=(DISK,))
    assert _metric("refusals_total") == refused + 1
    assert (_metric("blocked"), round(_metric("used_share"), 3)) == (1, 0.883)
    (state,) = block.states
    assert state.problem in caught.value.message
    source.usages = [usage(80 * MIB, 512 * MIB)]
    await block.measure()
    with pytest.raises(FeedBlocked, match=r"and 96\.0 MiB must be"):
        block.check("upserts")
    source.usages = [usage(96 * MIB, 512 * MIB)]
    await block.measure()
    block.check("upserts")
    assert (_metric("blocked"), block.states[0].problem) == (0, "")


def _metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"nearline_feed_block_{name}", {"resource": REDIS}) or 0.0


async def test_a_resource_that_does_not_answer_keeps_its_state_and_hides_no_other() -> None:
    redis, disk = Source(usage(0, MIB)), Source(usage(MIB, MIB), name=DISK)
    block = FeedBlock([redis.resource, disk.resource])
    await block.measure()
    redis.error, disk.usages = TimeoutError(), [usage(0, MIB)]
    await block.measure()
    with pytest.raises(FeedBlocked, match=r"Redis has .* some\. Redis has .*--feed-block-disk"):
        block.check("upserts")
    redis.error, redis.usages, disk.usages = None, [usage(MIB, MIB)], [usage(MIB, MIB)]
    await block.measure()
    block.check("upserts")


async def test_resources_are_measured_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.writes.feed_block._EVERY_S", 0.0)
    source = Source(usage(0, MIB))
    block = FeedBlock([source.resource])
    await block.start()
    with pytest.raises(FeedBlocked):
        block.check("upserts")
    # A bug in a measurement does not end it.
    source.error = ZeroDivisionError()
    await asyncio.sleep(0)
    source.error, source.usages = None, [usage(MIB, MIB)]
    await until(lambda: not block.states[0].problem, 5)
    await block.close()


async def test_disk_and_memory_of_this_machine_can_be_measured(tmp_path: Path) -> None:
    for resource in (disk_resource(tmp_path, 1.0), memory_resource(1.0)):
        usages = await resource.read()
        assert usages and all(0 <= one.free <= one.total for one in usages)
    gone = FeedBlock([disk_resource(tmp_path / "missing", 0.5)])
    await gone.measure()
    assert gone.states == []


async def test_the_memory_of_the_fullest_shard_server_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("retrieval.writes.feed_block.memory_limits", list)
    servers = {"a:1": [MemoryLimit(GIB, GIB)], "b:1": [MemoryLimit(MIB, GIB)]}
    block = FeedBlock([memory_resource(0.9, lambda: servers)])
    await block.measure()
    with pytest.raises(FeedBlocked, match=r"the memory of shard server b:1 has 1\.0 MiB of 1,024"):
        block.check("upserts")
    servers["b:1"] = [MemoryLimit(GIB, GIB)]
    await block.measure()
    block.check("upserts")


async def test_only_what_adds_items_is_refused() -> None:
    source = Source(usage(MIB, MIB), name=MEMORY)
    block = FeedBlock([source.resource])
    await block.measure()
    here = written(feed_block=block)
    item = c.Item(id="a", text="red", attributes={"year": 1})
    await here.writer.upsert_items([item])
    source.usages = [usage(0, MIB)]
    await block.measure()

    async def batches() -> AsyncIterator[Sequence[c.Item]]:
        yield [item]

    for refused in (
        here.writer.upsert_items([item]),
        here.writer.upsert_items([item], only_attributes=True),
        here.writer.upsert_batches(batches()),
    ):
        async with asyncio.timeout(5):
            with pytest.raises(FeedBlocked, match="upserts are refused, deletes are not"):
                await refused
    gone = await here.writer.delete_items(["a"])
    assert gone.results[0].outcome is c.WriteOutcome.DELETED
    source.usages = [usage(MIB, MIB)]
    await block.measure()
    again = await here.writer.upsert_items([item])
    assert again.results[0].outcome is c.WriteOutcome.APPLIED


async def test_what_ends_during_a_measurement_counts_until_the_next() -> None:
    source = Source(usage(100 * MIB, 512 * MIB))
    block = FeedBlock([source.resource])
    await block.measure()  # 76.8 MiB must be free.
    with contextlib.ExitStack() as adding:
        adding.enter_context(block.adding("upserts", 16 * MIB))
        source.during = adding.close
        await block.measure()
    with pytest.raises(FeedBlocked), block.adding("upserts", 8 * MIB):
        pass
    await block.measure()
    with block.adding("upserts", 8 * MIB):
        pass


async def test_a_disabled_limit_counts_nothing() -> None:
    block = FeedBlock([Source(usage(MIB, MIB), limit=1.0).resource])
    await block.measure()
    with block.adding("upserts", GIB):
        pass


async def test_parallel_upserts_between_two_measurements_do_not_pass_the_limit() -> None:
    needed = round(0.15 * MIB)
    source = Source(usage(MIB, MIB))
    block = FeedBlock([source.resource])
    here = written(feed_block=block)
    ids = [f"i{number}" for number in range(8)]
    await here.writer.upsert_items([c.Item(id=one, text="red") for one in ids])
    source.usages = [usage(needed + 100_000, MIB)]
    await block.measure()
    large: dict[str, c.AttributeValue] = {"kind": "x" * 40_000}
    replies = await asyncio.gather(
        *(
            here.writer.upsert_items([c.Item(id=one, attributes=large)], only_attributes=True)
            for one in ids
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, c.WriteReply) for one in replies) == 2
    assert sum(isinstance(one, FeedBlocked) for one in replies) == 6
    # Deletes pass, and count as nothing.
    await here.writer.delete_items(ids[:1])
    source.usages = [usage(needed + 60_000, MIB)]
    await block.measure()
    await here.writer.upsert_items([c.Item(id=ids[7], attributes=large)], only_attributes=True)


async def test_interactions_count_as_well() -> None:
    block = FeedBlock([Source(usage(round(0.15 * MIB) + 100_000, MIB)).resource])
    await block.measure()
    here, recorded = written(), 0

    class States:
        async def record(self, *_: object) -> c.RecordReply:
            nonlocal recorded
            recorded += 1
            return c.RecordReply(1, 0)

    collections = ServedCollections()
    collections.serve(here.served)
    states = cast(UserStates, States())
    service = RecommendationService(collections, default_policies(), states, feed_block=block)
    seen = [c.Interaction(item_id="i" * 500, user_id="u")] * 100
    await service.record_interactions(seen)
    with pytest.raises(FeedBlocked, match="interactions are refused, deletes are not: with the 0"):
        await service.record_interactions(seen)
    assert recorded == 1
