"""A snapshot that follows a log catches up before it is ready, and reports every problem."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from nearline.errors import (
    NotApplied,
    SnapshotGone,
    SnapshotMismatch,
    Unsupported,
)
from nearline.store.snapshot import partition_of
from retrieval.live import live_changes, published_state
from retrieval.live.documents import LiveItem
from retrieval.live.live_segment import LiveSegment
from retrieval.protocols.watermark import Watermark
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.live.followed_collection import (
    IDS,
    OLD,
    SHARDS,
    Open,
    delete,
    in_partition,
    until_stale,
    until_texts,
    upsert,
)
from tests.waits import until

_REFUSED = "nearline_retrieval_changes_refused_total"


async def test_a_snapshot_is_ready_once_the_whole_log_is_applied(opened: Open) -> None:
    one = opened()
    await one.write(upsert("d0"), upsert("n0"), delete("d1"))
    one.log.away = True
    loading = asyncio.ensure_future(one.load())
    reads = one.log.reads
    await asyncio.wait((loading,), timeout=0.3)
    assert (loading.done(), one.log.reads) == (False, reads)
    one.log.away = False
    await loading
    wanted = {**OLD, "d0": "new", "n0": "new"}
    del wanted["d1"]
    assert await one.texts() == wanted
    head = (await one.log.state()).head
    for number, applied in enumerate(await one.applied()):
        assert applied is not None
        assert applied.stale == ""
        assert applied.watermark.positions == tuple(
            at if partition * SHARDS // 64 == number else 0
            for partition, at in enumerate(head.positions)
        )


async def test_a_change_that_cannot_be_applied_is_set_aside_and_holds_up_no_other(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(
        self: LiveSegment, item: LiveItem, bounds: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> int:
        if item.text == "poison":
            self.vectors.add(vectors)  # Half of it is done by then.
            raise ValueError("not in this version")
        return add_item(self, item, bounds, vectors)

    add_item = LiveSegment.add
    monkeypatch.setattr(LiveSegment, "add", add)
    one = opened()
    before = REGISTRY.get_sample_value(_REFUSED, {"collection": "default"}) or 0.0
    await one.write(upsert("d0"), upsert("d1", "poison"), upsert("d2"))
    async with asyncio.timeout(10):
        await one.load()
    least = await one.write(upsert("d3"), upsert("d4", "poison"))
    wanted = {**OLD, "d0": "new", "d2": "new", "d3": "new"}
    # A caller who waits for the change is answered as well.
    assert await one.texts(least, asyncio.get_running_loop().time() + 10) == wanted
    await until_stale(one, "")
    assert REGISTRY.get_sample_value(_REFUSED, {"collection": "default"}) == before + 2
    least = await one.write(upsert("d1", "healthy"))
    assert (await one.texts(least))["d1"] == "healthy"


async def test_following_starts_at_the_watermark_of_the_snapshot(opened: Open) -> None:
    one = opened()
    seen = await one.write(upsert("d0", "in the snapshot"))
    one.snapshot = one.make(watermark=seen)
    await one.write(upsert("d1", "after it"))
    await one.load()
    # The text that the snapshot has of d0 is its own: the change before is not applied again.
    assert await one.texts() == {**OLD, "d1": "after it"}


async def test_a_watermark_waits_for_its_change_until_the_deadline(opened: Open) -> None:
    one = opened()
    await one.load()
    for number in range(20):
        least = await one.write(upsert("d0", f"text {number}"), upsert("d3", f"text {number}"))
        texts = await one.texts(least)
        assert (texts["d0"], texts["d3"]) == (f"text {number}", f"text {number}")
    partition = partition_of("d0")
    ahead = least.advanced({partition: least.positions[partition] + 3})
    soon = asyncio.get_running_loop().time() + 0.1
    with pytest.raises(NotApplied, match=r"has not applied 3 of the changes.*try again") as caught:
        await one.texts(ahead, soon)
    assert caught.value.retry_after_s
    with pytest.raises(SnapshotMismatch, match="belongs to change log"):
        await one.texts(Watermark("f" * 32))
    # Whoever goes away is forgotten.
    waiting = asyncio.ensure_future(one.texts(ahead))
    await asyncio.wait((waiting,), timeout=0.05)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await one.texts(await one.write(upsert("d0", "last")))


async def test_during_a_log_outage_the_last_state_is_served_and_marked_stale(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    await one.load()
    await one.texts(await one.write(upsert("d0")))
    one.log.away = True
    await until(lambda: any(each.away_s for each in one.progress().values()))
    assert await one.stale() == ""
    monkeypatch.setattr(published_state, "_STALE_AFTER_S", 0.0)
    await until_stale(one, "live changes are not being followed since 20")
    assert "the change log does not answer" in await one.stale()
    assert (await one.texts())["d0"] == "new"
    one.log.away = False
    await one.texts(await one.write(upsert("d1")))
    assert await one.stale() == ""
    assert [each.away_s for each in one.progress().values()] == [None, None]


async def test_a_log_that_was_set_back_is_applied_again(opened: Open) -> None:
    one = opened()
    await one.load()
    partition = partition_of("d0")
    others = in_partition(partition, 2)
    await one.write(upsert("d0"))
    lost = await one.write(*(upsert(other) for other in others))
    assert len(await one.texts(lost)) == len(OLD) + 2
    one.log.set_back(partition, 1)
    await until_texts(one, {**OLD, "d0": "new"})
    await until_stale(one, "")
    await one.write(upsert(others[1], "again"))
    await until_texts(one, {**OLD, "d0": "new", others[1]: "again"})


async def test_a_log_other_than_the_named_one_is_rejected_or_marked_stale(opened: Open) -> None:
    one, other = opened(), opened(allow_stale=True)
    for each in (one, other):
        await each.write(upsert("d0"))
        each.log.foreign = True
    with pytest.raises(SnapshotMismatch, match="Redis has another"):
        await one.load()
    await other.load()
    assert await other.texts() == OLD
    assert "Redis has another; wiped or foreign" in await other.stale()
    one.log.foreign = other.log.foreign = False
    await one.load()
    assert await one.texts() == {**OLD, "d0": "new"}
    # It goes on trying, and makes good what it missed.
    await until_texts(other, {**OLD, "d0": "new"})
    await until_stale(other, "")


async def test_losing_a_followed_log_fails_no_search(opened: Open) -> None:
    one = opened()
    await one.load()
    await one.texts(await one.write(upsert("d0")))
    one.log.foreign = True
    await until_stale(one, "Redis has another")
    assert await one.texts() == {**OLD, "d0": "new"}
    one.log.foreign = False
    await until_stale(one, "")
    assert await one.texts() == {**OLD, "d0": "new"}


async def test_missing_changes_are_named_in_the_error(opened: Open) -> None:
    one = opened()
    await one.write(upsert("d0"))
    seen = await one.write(upsert("d0"), upsert("d1"))
    await one.log.trim(seen)
    with pytest.raises(SnapshotMismatch, match=r"has the changes of partition .* up to 0.*only"):
        await one.load()
    one.snapshot = one.make(watermark=seen.advanced({partition_of("d0"): 9}))
    with pytest.raises(
        SnapshotMismatch, match=r"up to 9, but change log .* ends at 2: it has lost"
    ):
        await one.load()
    one.snapshot = one.make(watermark=seen)
    await one.load()
    assert await one.texts() == OLD


async def test_a_snapshot_of_an_earlier_log_follows_a_log_that_continues_it(
    opened: Open,
) -> None:
    one = opened()
    old = one.log.log_id
    one.snapshot = one.make(watermark=Watermark(old).advanced({3: 7}))
    one.log = MemoryLog()
    await one.write(upsert("d0"))
    one.name_log()
    with pytest.raises(
        SnapshotMismatch,
        match=f"belongs to change log {old}, but the current log is {one.log.log_id}",
    ):
        await one.load()
    one.log = MemoryLog()
    await one.write(upsert("d1"))
    # This one goes on from the snapshot's, whatever was named between.
    one.name_log(follows=old)
    await one.load()
    assert await one.texts() == {**OLD, "d1": "new"}


async def test_without_redis_a_collection_with_a_log_is_stale(opened: Open) -> None:
    one, other = opened(logs=False), opened(logs=False, named=False)
    await one.load()
    assert "no --redis was given: live changes since the snapshot" in await one.stale()
    with pytest.raises(NotApplied, match="no --redis was given"):
        await one.texts(
            Watermark(one.log.log_id).advanced({partition_of("d0"): 1}),
            asyncio.get_running_loop().time() + 0.05,
        )
    await other.load()
    assert await other.applied() == [None, None]
    assert other.progress() == {}
    with pytest.raises(Unsupported, match="--redis"):
        await other.texts(Watermark(other.log.log_id))


async def test_a_log_that_was_never_written_delays_nothing(opened: Open) -> None:
    one = opened(named=False)
    one.log.away = True
    await one.load()
    assert await one.applied() == [None, None]
    one.log.away = False
    await one.write(upsert("d0"))
    await until_texts(one, {**OLD, "d0": "new"})
    assert await one.stale() == ""


async def test_two_snapshots_are_followed_during_a_swap(opened: Open) -> None:
    one = opened()
    await one.load()
    seen = await one.write(upsert("d0"))
    old, shards = one.snapshot, one.shards
    one.snapshot = one.make(watermark=seen)
    await one.load()
    least = await one.write(upsert("d1"))
    assert await one.texts(least) == {**OLD, "d1": "new"}
    new, one.snapshot = one.snapshot, old
    newer, one.shards = one.shards, shards
    assert await one.texts(least) == {**OLD, "d0": "new", "d1": "new"}
    await one.hosting.release("default", old.snapshot_id)
    one.snapshot, one.shards = new, newer
    assert await one.texts(await one.write(delete("d1"))) == {n: "old" for n in IDS if n != "d1"}


async def test_a_load_that_waits_for_the_log_can_be_cancelled_and_repeated(opened: Open) -> None:
    one = opened()
    await one.write(upsert("d0"))
    one.log.away = True
    for _ in range(2):
        loading = asyncio.ensure_future(one.load())
        await until(lambda: one.live._followers)
        await one.hosting.release("default", one.snapshot.snapshot_id)
        with pytest.raises(SnapshotGone, match="released before it was ready"):
            await loading
        assert not one.live._followers
    loading = asyncio.ensure_future(one.load())
    one.log.away = False
    await loading
    assert await one.texts() == {**OLD, "d0": "new"}


def measured(name: str, **labels: str) -> float | None:
    """Returns the value of a metric of the collection."""
    return REGISTRY.get_sample_value(
        f"nearline_retrieval_{name}", {"collection": "default", **labels}
    )


async def test_progress_counts_added_and_hidden_documents(opened: Open) -> None:
    one = opened()
    start = datetime.now(UTC)
    await one.write(upsert("d0"), upsert("n0"), delete("d1"))
    await one.write(upsert("d0", "again"))
    await one.load()
    told = one.progress()
    assert sum(each.changes for each in told.values()) == 4
    assert sum(each.rows for each in told.values()) == 2
    assert sum(each.dead_rows for each in told.values()) == 1
    assert sum(each.hidden_rows for each in told.values()) == 2
    assert sum(each.behind for each in told.values()) == 0
    oldest = min(each.oldest_change for each in told.values() if each.oldest_change)
    assert start - timedelta(seconds=1) <= oldest <= datetime.now(UTC)
    (following,) = one.live._followers.values()
    live_changes._measure(following, start + timedelta(hours=1))
    assert [measured("live_rows", state=each) for each in ("served", "dead", "hidden")] == [2, 1, 2]
    assert (measured("changes_behind"), measured("log_away_seconds")) == (0, 0)
    assert measured("oldest_change_seconds") == pytest.approx(3_600, abs=30)


async def test_metrics_are_those_of_the_snapshot_loaded_last(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_changes, "_TICK_S", 0.001)
    one = opened()
    await one.load()
    seen = await one.write(upsert("n0"), upsert("n1"))
    await one.texts(seen)
    await until_measured(2.0, "live_rows", state="served")
    one.snapshot = one.make(watermark=seen)
    await one.load()
    await one.texts(await one.write(upsert("n2")))
    await until_measured(1.0, "live_rows", state="served")
    # A follower that fails hides no figures.
    for follower in one.live._followers.values():
        monkeypatch.setattr(follower, "tick", None)
    one.log.away = True
    await until_measured(None, "log_away_seconds")


async def until_measured(wanted: float | None, name: str, **labels: str) -> None:
    """Waits until a metric has a value; None waits until it is more than 0."""
    async with asyncio.timeout(10):
        while True:
            found = measured(name, **labels) or 0.0
            if found == wanted or (wanted is None and found > 0):
                return
            await asyncio.sleep(0.002)


async def test_shards_converge_to_the_log_whatever_happens(opened: Open) -> None:
    chance = random.Random(7)
    one = opened()
    await one.load()
    ids = [*IDS, *(f"n{number}" for number in range(20))]
    for _ in range(60):
        what = chance.random()
        if what < 0.1:
            one.log.away = not one.log.away
        elif what < 0.2:
            partition = partition_of(chance.choice(ids))
            kept = one.log._partitions[partition].head
            one.log.set_back(partition, chance.randint(0, kept))
            # A reader of this log hears of it once.
            one.log.away = False
            await until_texts(one, expected(one.log))
        elif not one.log.away:
            some = chance.sample(ids, 3)
            await one.write(
                *(
                    delete(each) if chance.random() < 0.3 else upsert(each, str(chance.random()))
                    for each in some
                )
            )
        await asyncio.sleep(0)
    one.log.away = False
    await until_texts(one, expected(one.log))
    await until_stale(one, "")


def expected(log: MemoryLog) -> dict[str, str]:
    """Replays a log."""
    texts = dict(OLD)
    for partition in log._partitions:
        for entry in partition.entries:
            texts.pop(entry.change.document_id, None)
            if entry.change.text:
                texts[entry.change.document_id] = entry.change.text
    return texts
