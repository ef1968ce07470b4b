"""The queue in a real Redis: turns, capacity, retries and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from index_builder.ingest import keys
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import ExpansionProgress, QueueLimits
from nearline import contract as c
from nearline.errors import Conflict, InvalidRequest, NotFound, NotReady, Overloaded
from nearline.store.snapshot import PARTITIONS
from retrieval.protocols.watermark import decode_watermark
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import (
    LOG,
    ended,
    job_store_of,
    submission,
    take_all,
    worker_of,
)
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    await client.flushall()
    await client.config_set("appendonly", "yes")
    yield client
    await client.aclose()


async def test_every_tenant_gets_an_equal_share_however_much_it_has(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    await desk.submit(submission("much", 400, tenant="much"))
    for name in ("few", "fewer"):
        await desk.submit(submission(name, 20, tenant=name))
    taken: list[str] = []
    for _ in range(10):
        units = await worker.take(6)
        assert Counter(one.lane.tenant for one in units) == {"much": 2, "few": 2, "fewer": 2}
        taken += [one.lane.tenant for one in units]
    # The other tenants have no more; their rest goes to the one that has.
    assert Counter(one.lane.tenant for one in await worker.take(50)) == {"much": 50}
    # A tenant that returns is owed nothing for its absence.
    await desk.submit(submission("few-2", 100, tenant="few"))
    assert Counter(one.lane.tenant for one in await worker.take(50)) == {"much": 25, "few": 25}


async def test_all_of_many_tenants_have_their_turn(redis: Redis) -> None:
    for number in range(40):
        await job_store_of(redis).submit(submission(f"j{number}", 3, tenant=f"tenant {number}"))
    worker = worker_of(redis)
    first = [one for _ in range(20) for one in await worker.take(4)]
    # 80 of 120: every tenant was served twice before any was served a fourth time.
    assert max(Counter(one.lane.tenant for one in first).values()) <= 3
    assert len({one.lane.tenant for one in first}) == 40


async def test_within_a_tenant_higher_priorities_come_first(redis: Redis) -> None:
    for priority in (c.JobPriority.LOW, c.JobPriority.NORMAL, c.JobPriority.HIGH):
        await job_store_of(redis).submit(submission(priority.value, 3, priority=priority))
    units = await worker_of(redis).take(7)
    assert [one.job_id for one in units] == ["high"] * 3 + ["normal"] * 3 + ["low"]
    assert [one.place for one in units] == [0, 1, 2, 0, 1, 2, 0]


async def test_submission_times_follow_the_order_of_submission(redis: Redis) -> None:
    for number in range(5):
        await job_store_of(redis).submit(submission(f"j{number}", 3, tenant=f"{number % 2}"))
    units = await take_all(worker_of(redis))
    units.sort(key=lambda one: (one.job_id, one.place))
    times = [one.as_of for one in units]
    assert times == sorted(times) and len(set(times)) == 15


async def test_a_full_queue_refuses_with_a_retry_time(redis: Redis) -> None:
    desk = job_store_of(redis, QueueLimits(units=10, tenant_units=6, bytes=6_500))
    await desk.submit(submission("a", 6, tenant="a"))
    with pytest.raises(Overloaded, match="tenant 'a' has 6 of 6 sources") as refused:
        await desk.submit(submission("b", 1, tenant="a"))
    assert refused.value.retry_after_s
    await desk.submit(submission("c", 4, tenant="c"))
    with pytest.raises(Overloaded, match="10 of 10 sources are in the queue, which leaves no room"):
        await desk.submit(submission("d", 1, tenant="d"))
    with pytest.raises(NotFound, match="no job 'd'"):
        await desk.job("d")
    worker = worker_of(redis)
    await worker.settle([ended(one) for one in await worker.take(4)])
    with pytest.raises(Overloaded, match=r"of 6500 bytes .* or raise --max-queued-bytes"):
        await desk.submit(submission("d", [c.Item(id="d", text="d" * 5_500)], tenant="d"))
    await desk.submit(submission("d", 1, tenant="d"))


async def test_a_tenant_has_half_of_the_bytes_and_leaves_the_others_to_others(
    redis: Redis,
) -> None:
    desk = job_store_of(redis, QueueLimits(bytes=20_000))
    large = c.Item(id="l", text="l" * 12_000)
    # A source alone is never too large for a share.
    await desk.submit(submission("a", [large], tenant="a"))
    with pytest.raises(Overloaded, match=r"'a' has 12,?\d+ bytes in the queue, and may have 10000"):
        await desk.submit(submission("b", 2, tenant="a"))
    await desk.submit(submission("c", 4, tenant="c"))
    worker = worker_of(redis)
    await worker.settle([ended(one) for one in await take_all(worker)])
    # What has ended leaves nothing behind.
    half = [c.Item(id=f"{n}", text="h" * 4_000) for n in range(2)]
    for _ in range(2):
        await desk.submit(submission("d", half, tenant="a"))
        await worker.settle([ended(one) for one in await take_all(worker)])
    assert not [name for name in await redis.hkeys(keys.META) if "bytes:" in str(name)]


async def test_an_open_job_continues_at_its_offset(redis: Redis) -> None:
    desk = job_store_of(redis)
    await desk.submit(submission("a", 3, more=True))
    with pytest.raises(Conflict, match="has 3 sources, but offset is 5; continue at offset 3"):
        await desk.submit(submission("a", 1, offset=5))
    with pytest.raises(Conflict, match="has 0 sources, but offset is 5"):
        await desk.submit(submission("b", 1, offset=5))
    with pytest.raises(Conflict, match="a different tenant, collection or priority"):
        await desk.submit(submission("a", 1, offset=3, tenant="other"))
    await desk.submit(submission("a", 2, offset=3))
    assert (await desk.job("a")).sources == 5
    with pytest.raises(Conflict, match="is closed for more sources"):
        await desk.submit(submission("a", 1, offset=5))
    units = await take_all(worker_of(redis))
    assert [one.place for one in units] == [0, 1, 2, 3, 4]


async def test_only_the_holder_extends_a_lease(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("a", 3))
    lost, next_one = worker_of(redis, "lost", lease_s=0.0), worker_of(redis, "next")
    units = await lost.take(3)
    [again] = await next_one.take(1)
    assert (again.place, again.losses, again.failed) == (0, 1, 0)
    assert [one.place for one in await lost.extend(units)] == [0]
    assert await lost.give_back(units, failed=True) == 2
    # These failed; the other one still belongs to the next worker, which alone may settle it.
    taken = await take_all(next_one)
    assert [(one.place, one.failed, one.losses) for one in taken] == [(1, 1, 0), (2, 1, 0)]
    assert len(await next_one.settle([ended(one) for one in (again, *taken)])) == 3
    assert await lost.settle([ended(one) for one in units]) == []


async def test_after_an_extension_nobody_gets_a_unit_past_the_first_end(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("a", 3))
    # The leases that `take` gives have ended by the time they are extended.
    units = await worker_of(redis, "w", lease_s=0.0).take(3)
    now_s, _ = await redis.time()
    assert await worker_of(redis, "w", lease_s=60.0).extend(units[:2]) == []
    [late] = await take_all(worker_of(redis, "other"))
    assert late.place == 2
    ends: Any = await redis.zrange(keys.LEASES, 0, 1, withscores=True)
    assert {name.decode() for name, _ in ends} == {one.name for one in units[:2]}
    assert all(now_s + 59 < end_ms / 1_000 < now_s + 90 for _, end_ms in ends)


async def test_failed_units_wait_for_their_retry(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("a", 2))
    worker = worker_of(redis)
    first, second = await worker.take(2)
    await worker.give_back({first: 1_000.0, second: 0.0}, failed=True)
    assert [one.place for one in await take_all(worker)] == [1]
    state = await LoadStatsReader(redis).read()
    assert (state.waiting, state.in_hand, state.delayed, state.lag) == (0, 1, 1, 2)


@pytest.mark.parametrize("limit", [1, 3, 5, 6])
async def test_a_worker_gets_no_more_than_it_asks_for(redis: Redis, limit: int) -> None:
    await job_store_of(redis).submit(submission("a", 6))
    worker = worker_of(redis)
    # Two of lost leases, two to be retried, two that nobody had.
    failed = await worker.take(2)
    await worker_of(redis, "lost", lease_s=0.0).take(2)
    await worker.give_back(failed, failed=True)
    state = await LoadStatsReader(redis).read()
    assert (state.waiting, state.in_hand, state.delayed) == (2, 2, 2)
    taken = await worker.take(limit)
    assert len(taken) == limit
    taken += await worker.take(6)
    assert len({one.place for one in taken}) == len(taken) == 6


async def test_the_watermark_of_a_job_covers_all_its_indexed_documents(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("a", 10))
    worker = worker_of(redis)
    units = await take_all(worker)
    # As numbers: ten is more than nine.
    for one in (units[2], units[0], units[8], units[9], units[7]):
        await worker.settle([ended(one)])
    mark = decode_watermark((await job_store_of(redis).job("a")).watermark)
    assert mark is not None and mark.log_id == LOG
    assert mark.positions == tuple(10 if one == 5 else 0 for one in range(PARTITIONS))


async def test_results_expire_with_their_job_once_it_has_finished(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    await desk.submit(submission("a", 2, ttl_s=1_000.0))
    await desk.submit(submission("b", 2, ttl_s=1_000.0))
    *most, last = await take_all(worker)
    await worker.settle([ended(one, c.IngestOutcome.DEAD) for one in most])
    job = await desk.job("a")
    assert job.finish_time and job.expire_time
    assert (job.expire_time - job.finish_time).total_seconds() == pytest.approx(1_000, abs=1)
    # The other job has not finished, so its time to live has not begun.
    assert (await desk.job("b")).expire_time is None
    first, other = ((keys.job_key(one), keys.results_key(one)) for one in "ab")
    assert all([990_000 < await redis.pttl(one) <= 1_000_000 for one in first])
    assert [await redis.pttl(one) for one in other] == [-1, -1]
    await worker.settle([ended(last)])
    assert all([990_000 < await redis.pttl(one) <= 1_000_000 for one in other])
    await redis.delete(*first)
    with pytest.raises(NotFound):
        await desk.results("a", 0, 10)
    assert len((await desk.results("b", 0, 10))[0]) == 2


async def test_a_dead_letter_is_kept_though_its_job_has_expired(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    file = c.SourceFile("a.md", b"text")
    await desk.submit(submission("a", [file, file]))
    units = await take_all(worker)
    await redis.delete(keys.job_key("a"), keys.results_key("a"))
    outcomes = (c.IngestOutcome.DEAD, c.IngestOutcome.INDEXED)
    settled = [ended(one, outcome) for one, outcome in zip(units, outcomes, strict=True)]
    assert await worker.settle(settled) == settled
    [letter], _ = await desk.letters.page("", {}, 10, with_source=True)
    assert (letter.job_id, letter.source) == ("a", file)
    assert letter.result.message == "it is bad"
    # Nothing of the job comes back, for it would never expire.
    assert await redis.exists(keys.job_key("a"), keys.results_key("a")) == 0
    await desk.requeue([letter.letter_id], "again", 9.0)
    [again] = await take_all(worker)
    assert (again.source, again.as_of) == (file, units[0].as_of)


async def test_the_documents_of_a_file_are_queued_once(redis: Redis) -> None:
    desk = job_store_of(redis)
    file = c.SourceFile("rows.jsonl", b"")
    await desk.submit(submission("a", [file, c.Item(id="x", text="x")]))
    worker, other = worker_of(redis, "w", lease_s=0.0), worker_of(redis, "other")
    unit, _ = await worker.take(2)
    rows: list[tuple[c.IngestSource, str]] = [
        (c.Item(id=f"row {n}", text="text"), "") for n in range(5)
    ]
    rows[3] = (c.SourceUrl("rows.jsonl:4"), "it is malformed")
    assert await worker.expand(unit, 0, rows[:2]) == ExpansionProgress(2, False)
    # The reply was lost, and the request is repeated.
    assert await worker.expand(unit, 0, rows[:2]) == ExpansionProgress(2, False)
    [again] = await other.take(1)
    assert again.source == file and await other.read_so_far(again) == 2
    # The first worker is alive after all, but the file belongs to the other one now.
    assert await worker.expand(unit, 2, rows[2:4]) is None
    assert await other.expand(again, 2, rows[2:]) == ExpansionProgress(5, False)
    await other.settle([ended(again, c.IngestOutcome.EXPANDED)])
    units = [one for one in await take_all(other) if one.place >= 2]
    assert [(one.place, one.error) for one in units] == [
        (2, ""),
        (3, ""),
        (4, ""),
        (5, "it is malformed"),
        (6, ""),
    ]
    assert {one.as_of for one in units} == {unit.as_of}
    job = await desk.job("a")
    assert (job.sources, job.documents, job.left) == (2, 6, 6)


async def test_a_file_waits_while_the_queue_is_full(redis: Redis) -> None:
    limits = QueueLimits(units=4)
    await job_store_of(redis, limits).submit(submission("a", [c.SourceFile("rows.jsonl", b"")]))
    worker = worker_of(redis, limits=limits)
    [unit] = await worker.take(1)
    rows = [(c.Item(id=f"row {n}", text="text"), "") for n in range(6)]
    assert await worker.expand(unit, 0, rows[:3]) == ExpansionProgress(3, False)
    assert await worker.expand(unit, 3, rows[3:]) == ExpansionProgress(3, True)
    await worker.settle([ended(one) for one in await worker.take(3)])
    assert await worker.expand(unit, 3, rows[3:]) == ExpansionProgress(6, False)


async def test_a_cancelled_job_takes_no_more_documents_of_its_file(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    await desk.submit(submission("a", [c.SourceFile("rows.jsonl", b"")]))
    [unit] = await worker.take(1)
    await desk.close("a", cancel=True)
    assert (await desk.job("a")).state is c.JobState.CANCELLING
    assert await worker.expand(unit, 0, [(c.Item(id="x", text="x"), "")]) is None
    assert await worker.begin(["a", "b"]) == {"a"}
    await worker.settle([ended(unit, c.IngestOutcome.CANCELLED)])
    assert (await desk.job("a")).state is c.JobState.CANCELLED


async def test_requeued_dead_letters_keep_their_submission_time(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    await desk.submit(submission("a", 2))
    await desk.submit(submission("b", 1, tenant="other"))
    units = await take_all(worker)
    await worker.settle([ended(one, c.IngestOutcome.DEAD) for one in units])
    letters, rest = await desk.letters.page("", {}, 2, with_source=True)
    more, none = await desk.letters.page(rest, {}, 2, with_source=False)
    assert (len(letters), len(more), none) == (2, 1, "")
    by_job = {one.job_id: one for one in (*letters, *more)}
    with pytest.raises(InvalidRequest, match="a different collection or tenant"):
        await desk.requeue([by_job["a"].letter_id, by_job["b"].letter_id], "again", 9.0)
    with pytest.raises(NotFound, match="none was requeued"):
        await desk.requeue([by_job["a"].letter_id, "1-1"], "again", 9.0)
    mine = [one for one in (*letters, *more) if one.job_id == "a"]
    await desk.requeue([one.letter_id for one in mine], "again", 9.0)
    back = await take_all(worker)
    assert sorted(one.as_of for one in back) == sorted(
        one.as_of for one in units if one.job_id == "a"
    )
    assert [one.job_id for one in back] == ["again", "again"]
    assert (await LoadStatsReader(redis).read()).dead == 1


async def test_the_age_is_that_of_the_oldest_waiting_unit(redis: Redis) -> None:
    desk, worker = job_store_of(redis), worker_of(redis)
    assert (await LoadStatsReader(redis).read()).oldest_age_s == 0.0
    await desk.submit(submission("a", 2))
    first = (await LoadStatsReader(redis).read()).oldest_age_s
    await desk.submit(submission("b", 2, tenant="other", priority=c.JobPriority.LOW))
    assert (await LoadStatsReader(redis).read()).oldest_age_s > first > 0
    await take_all(worker)
    state = await LoadStatsReader(redis).read()
    assert (state.oldest_age_s, state.waiting, state.in_hand) == (0.0, 0, 4)
    assert state.bytes > 0


async def test_a_redis_without_persistence_is_refused(redis: Redis) -> None:
    await redis.config_set("appendonly", "no")
    with pytest.raises(NotReady, match="appendonly no"):
        await job_store_of(redis).submit(submission("a"))
    assert await redis.keys("*") == []


async def test_an_unreadable_entry_does_not_affect_others(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("a", 2))
    lane = keys.lanes_of("t")[1].key
    entries: Any = await redis.xrange(lane)
    fields = entries[0][1]
    await redis.xadd(lane, {**fields, b"source": b"\xff\xff", b"place": b"2"})
    units = await worker_of(redis).take(10)
    assert [bool(one.error) for one in units] == [False, False, True]
    assert "this version of nearline cannot read" in units[2].error
