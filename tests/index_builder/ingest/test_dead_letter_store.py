"""Dead letters cost a bounded share of Redis: their oldest sources are dropped, no letter is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from index_builder.ingest import dead_letter_store, keys
from index_builder.ingest.capacity import clamped
from index_builder.ingest.janitor import Janitor
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import QueueLimits
from nearline import contract as c
from nearline.errors import InvalidRequest, Overloaded
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import (
    ended,
    job_store_of,
    submission,
    take_all,
    worker_of,
)
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
MIB = 1 << 20


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    await client.flushall()
    yield client
    await client.config_set("maxmemory", 0)
    await client.aclose()


async def _fail(redis: Redis, job_id: str, files: int, size: int, limits: QueueLimits) -> None:
    """Submits files and lets each become a dead letter."""
    for number in range(files):
        source = c.SourceFile(f"{number}.md", b"x" * size)
        await job_store_of(redis, limits).submit(
            submission(job_id, [source], offset=number, more=True)
        )
        [unit] = await take_all(worker_of(redis, limits=limits))
        await worker_of(redis, limits=limits).settle([ended(unit, c.IngestOutcome.DEAD)])


async def _kept(redis: Redis) -> tuple[list[int], int]:
    """Returns the places of the letters with a source, and the bytes counted."""
    letters, rest = await job_store_of(redis).letters.page("", {}, 1_000, with_source=True)
    assert not rest
    counted = int(await redis.hget(keys.META, "dead_bytes") or 0)
    sizes = [len(one) for one in await redis.hvals(keys.DEAD_SOURCES)]
    assert counted == sum(sizes)
    return [one.result.place for one in letters if one.source is not None], len(letters)


async def test_the_oldest_sources_are_dropped_and_every_letter_stays(redis: Redis) -> None:
    limits = QueueLimits(dead_bytes=3_500)
    await _fail(redis, "job", 6, 1_000, limits)
    assert await _kept(redis) == ([3, 4, 5], 6)
    letters, _ = await job_store_of(redis).letters.page("", {}, 10, with_source=False)
    assert all(one.source is None for one in letters)
    with pytest.raises(InvalidRequest, match="was dropped"):
        await job_store_of(redis, limits).requeue([letters[0].letter_id], "again", 9.0)
    await job_store_of(redis, limits).requeue([letters[4].letter_id], "again", 9.0)
    [unit] = await take_all(worker_of(redis))
    assert unit.source == c.SourceFile("4.md", b"x" * 1_000)
    assert await _kept(redis) == ([3, 5], 5)
    assert await job_store_of(redis).letters.delete([letters[3].letter_id]) == 1
    assert await _kept(redis) == ([5], 4)
    # One that is larger than all room takes the place of no other.
    await _fail(redis, "large", 1, 4_000, limits)
    assert await _kept(redis) == ([5], 5)


async def test_expired_letters_take_their_sources_along(redis: Redis) -> None:
    await _fail(redis, "job", 3, 1_000, QueueLimits())
    store = job_store_of(redis)
    janitor = Janitor(redis, store, LoadStatsReader(redis), 1_000.0, dead_letter_ttl_s=-1.0)
    await janitor.clear()
    assert await _kept(redis) == ([], 0)
    assert await redis.hlen(keys.DEAD_SOURCES) == 0


async def test_letters_of_earlier_versions_are_listed_and_requeued(redis: Redis) -> None:
    await _fail(redis, "job", 1, 100, QueueLimits())
    entries: Any = await redis.xrange(keys.DEAD)
    [(name, fields)] = entries
    source: Any = await redis.hget(keys.DEAD_SOURCES, name)
    await redis.delete(keys.DEAD, keys.DEAD_SOURCES)
    del fields[b"bytes"]
    await redis.xadd(keys.DEAD, {**fields, b"source": source}, name)
    store = job_store_of(redis)
    [letter], _ = await store.letters.page("", {}, 10, with_source=True)
    assert letter.source == c.SourceFile("0.md", b"x" * 100)
    await store.requeue([letter.letter_id], "again", 9.0)
    [unit] = await take_all(worker_of(redis))
    assert unit.source == letter.source


async def test_bad_files_leave_a_full_redis_room_for_others(redis: Redis) -> None:
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 64 * MIB)
    await _fail(redis, "job", 32, 4 * MIB, QueueLimits())
    letters, _ = await job_store_of(redis).letters.page("", {}, 100, with_source=False)
    assert len(letters) == 32
    memory = await redis.info("memory")
    assert memory["used_memory"] < memory["maxmemory"] / 2
    await redis.set("session", "x" * MIB)


async def test_the_queue_is_full_before_redis_is(redis: Redis) -> None:
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 64 * MIB)
    store: JobStore = job_store_of(redis)
    with pytest.raises(Overloaded, match="bytes are in the queue"):
        for number in range(32):
            source = c.SourceFile("a.md", b"x" * 4 * MIB)
            await store.submit(submission(f"{number}", [source], tenant=f"{number}"))
    await redis.set("session", "x" * MIB)


async def test_listing_reads_sources_only_if_asked_and_pages_end_by_bytes(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fail(redis, "job", 10, 100_000, QueueLimits())
    before = (await redis.info("stats"))["total_net_output_bytes"]
    letters, _ = await job_store_of(redis).letters.page("", {}, 100, with_source=False)
    assert len(letters) == 10
    after = (await redis.info("stats"))["total_net_output_bytes"]
    assert after - before < 50_000
    monkeypatch.setattr(dead_letter_store, "PAGE_BYTES", 350_000)
    pages, token = [], ""
    while True:
        page, token = await job_store_of(redis).letters.page(token, {}, 100, with_source=True)
        pages.append([one.result.place for one in page])
        if not token:
            break
    assert pages == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_limits_leave_room_in_the_memory_of_redis() -> None:
    limits = QueueLimits()
    assert clamped(limits, 0) == limits
    assert clamped(limits, 512 * MIB) == limits
    small = clamped(limits, 64 * MIB)
    assert (small.bytes, small.dead_bytes, small.units) == (16 * MIB, 4 * MIB, limits.units)
    # Less than half of the memory, all together.
    assert 2 * (small.bytes + small.dead_bytes + small.result_bytes) < 64 * MIB
    assert clamped(limits, 1 << 40) == limits


async def test_a_redis_that_hides_its_memory_takes_sources(redis: Redis) -> None:
    client: Any = redis
    await client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        await job_store_of(redis).submit(submission("job", 3))
        assert len(await take_all(worker_of(redis))) == 3
    finally:
        await client.execute_command("ACL", "SETUSER", "default", "+info")
