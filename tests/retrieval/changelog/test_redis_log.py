"""The change log in a real Redis: outcomes, order and retention."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.crc import key_slot

from nearline.contract import WriteOutcome
from nearline.errors import InvalidRequest, NotReady, SnapshotMismatch, Unsupported
from nearline.internal.v1.change_pb2 import LogRecord
from nearline.store.snapshot import Store, partition_of
from retrieval.changelog import redis_log
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.redis_log import RedisLog
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.connection import connect
from tests.redis_server import needs_redis
from tests.retrieval.changelog.log_writes import change_logs, delete, set_attribute, upsert

pytestmark = [pytest.mark.service, needs_redis]
ALL = dict.fromkeys(range(64), 0)
A = partition_of("a")


@pytest_asyncio.fixture(name="logs")
async def give_logs(empty_redis: str, tmp_path: Path) -> AsyncIterator[ChangeLogs]:
    async with change_logs(tmp_path, empty_redis) as logs:
        yield logs


@pytest.fixture(name="log")
def give_log(logs: ChangeLogs) -> RedisLog:
    return logs.log("default")


async def outcomes(log: RedisLog, *writes: object, key: str = "") -> list[tuple[str, int]]:
    appended = await log.append(writes, key)  # type: ignore[arg-type]
    return [(one.outcome.value, one.version) for one in appended.results]


async def test_versions_and_outcomes_of_changes_of_an_item(log: RedisLog) -> None:
    assert await outcomes(log, delete("a"), set_attribute("b", "x", 1)) == [
        ("absent", 0),
        ("absent", 0),
    ]
    assert await log.read(ALL) == []
    assert await outcomes(log, upsert("a")) == [("applied", 1)]
    assert await outcomes(log, set_attribute("a", "x", 1)) == [("replaced", 2)]
    assert await outcomes(log, upsert("a")) == [("replaced", 3)]
    assert await outcomes(log, delete("a")) == [("deleted", 4)]
    assert await outcomes(log, delete("a")) == [("absent", 0)]
    assert await outcomes(log, upsert("a")) == [("applied", 5)]
    entries = await log.read(ALL)
    assert [(e.partition, e.position, e.change.kind.value) for e in entries] == [
        (A, 1, "upsert"),
        (A, 2, "attributes"),
        (A, 3, "upsert"),
        (A, 4, "delete"),
        (A, 5, "upsert"),
    ]
    assert entries[1].change.attributes == {"x": 1}
    times = [entry.time_us for entry in entries]
    assert times == sorted(times)
    state = await log.state()
    assert state.head.positions[A] == sum(state.head.positions) == 5
    assert sum(state.trimmed.positions) == 0


async def test_a_read_without_entries_costs_two_commands(log: RedisLog, empty_redis: str) -> None:
    await log.read(ALL)
    redis = connect(empty_redis, timeout_s=10.0)
    try:
        await redis.config_resetstat()
        assert await log.read(ALL, wait_s=0.02) == []
        stats = await redis.info("commandstats")
        assert {name: stats[f"cmdstat_{name}"]["calls"] for name in ("xread", "eval")} == {
            "xread": 1,
            "eval": 1,
        }
    finally:
        await redis.aclose()


async def test_a_request_with_an_idempotency_key_runs_once(log: RedisLog) -> None:
    writes = [upsert(str(number)) for number in range(20)]
    first = await log.append(writes, "key")
    assert {one.outcome for one in first.results} == {WriteOutcome.APPLIED}
    assert await log.append(writes, "key") == first
    assert sum((await log.state()).head.positions) == 20
    # Of all its partitions, and of others as well.
    for other in ([upsert("0", "another")], writes[:19], [upsert("somewhere else")]):
        with pytest.raises(InvalidRequest, match="used for another request") as caught:
            await log.append(other, "key")
        assert caught.value.field == "idempotency_key"
    assert sum((await log.state()).head.positions) == 20
    [again] = (await log.append(writes[:1], "another key")).results
    assert again.outcome is WriteOutcome.REPLACED


async def test_the_watermark_of_an_append_covers_its_entries(log: RedisLog) -> None:
    writes = [upsert(str(number)) for number in range(100)]
    appended = await log.append(writes)
    assert appended.watermark == (await log.state()).head
    entries = await log.read(ALL)
    assert {entry.change.document_id for entry in entries} == {str(n) for n in range(100)}
    # Of the partitions that it has changed, and those alone.
    small = await log.append([upsert("0")])
    assert (
        small.watermark.positions[partition_of("0")]
        == appended.watermark.positions[partition_of("0")] + 1
    )
    assert sum(map(bool, small.watermark.positions)) == 1


async def test_a_request_of_maximum_size_is_appended(log: RedisLog) -> None:
    text = "4 KB \0 ü " * 455
    one_partition = [str(n) for n in range(80_000) if partition_of(str(n)) == 5][:1_024]
    for ids in (one_partition, [f"id {n}" for n in range(1_024)]):
        appended = await log.append([upsert(name, text + name) for name in ids], "key" + ids[0])
        assert [one.outcome for one in appended.results] == [WriteOutcome.APPLIED] * 1_024
    after, found = dict(ALL), {}
    while entries := await log.read(after):
        for entry in entries:
            assert entry.position == after[entry.partition] + 1
            after[entry.partition] = entry.position
            found[entry.change.document_id] = entry.change.text
    assert found == {
        name: text + name for name in (*one_partition, *(f"id {n}" for n in range(1_024)))
    }


async def test_one_large_change_is_encoded_and_decoded_off_the_event_loop(
    log: RedisLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def noted(name: str) -> Callable[..., Any]:
        work = getattr(redis_log, name)

        def run(*given: Any) -> Any:
            ran.append((name, threading.current_thread() is threading.main_thread()))
            return work(*given)

        return run

    for name in ("make_append_calls", "decode_entries"):
        monkeypatch.setattr(redis_log, name, noted(name))
    await log.append([upsert("a", text="long" * 5_000)])
    assert len(await log.read(ALL)) == 1
    assert ran == [("make_append_calls", False), ("decode_entries", False)]


async def test_a_reader_waits_for_new_entries(logs: ChangeLogs, log: RedisLog) -> None:
    await log.state()
    reading = asyncio.create_task(logs.reader("default").read({A: 0}, wait_s=30))
    await asyncio.sleep(0)
    await log.append([upsert("another partition"), upsert("a")])
    [entry] = await reading
    assert (entry.position, entry.change.document_id) == (1, "a")
    assert await log.read({A: 1}, wait_s=0.01) == []
    assert await log.read({}) == []
    await log.append([upsert("a"), upsert("a")])
    assert [e.position for e in await log.read({A: 0}, limit=2)] == [1, 2]


async def test_who_finds_no_log_joins_the_log_that_another_has_created_meanwhile(
    empty_redis: str, tmp_path: Path
) -> None:
    class SlowStore(Store):
        """A store whose first answer is of the time before another service created the log."""

        asked = 0

        def log_records(self, collection: str) -> Iterator[LogRecord]:
            self.asked += 1
            return iter(()) if self.asked == 1 else super().log_records(collection)

    async with change_logs(tmp_path, empty_redis) as logs:
        created = await logs.log("default").state()
    logs = ChangeLogs(SlowStore(tmp_path), empty_redis, who="a slower service")
    try:
        assert (await logs.log("default").state()).head == created.head
    finally:
        await logs.close()


async def test_concurrent_appends_leave_no_gap(empty_redis: str, tmp_path: Path) -> None:
    async with (
        change_logs(tmp_path, empty_redis) as one,
        change_logs(tmp_path, empty_redis) as other,
    ):
        # Both make the log, and agree on which it is.
        states = await asyncio.gather(one.log("default").state(), other.log("default").state())
        assert states[0] == states[1]
        results = await asyncio.gather(
            *(
                logs.log("default").append([upsert("a"), upsert(f"{n} {who}")])
                for n in range(50)
                for who, logs in (("one", one), ("other", other))
            )
        )
        versions = sorted(appended.results[0].version for appended in results)
        positions = [e.position for e in await one.log("default").read({A: 0})]
        assert positions == list(range(1, len(positions) + 1))
        assert len(set(versions)) == 100 and set(versions) <= set(positions)
        # Who names a version that two have read: one of them was faster.
        wanted = versions[-1]
        both = await asyncio.gather(
            *(x.log("default").append([upsert("a", if_version=wanted)]) for x in (one, other))
        )
        assert sorted(done.results[0].outcome.value for done in both) == ["rejected", "replaced"]


async def test_trimmed_changes_are_not_read_and_their_versions_are_dropped(
    logs: ChangeLogs, log: RedisLog, empty_redis: str
) -> None:
    ids = [str(n) for n in range(20_000) if partition_of(str(n)) == A][:100]
    await log.append([upsert(name) for name in ids])
    await log.append([upsert(ids[0]), delete(ids[1])])
    head = (await log.state()).head
    assert await log.trim(head.advanced({A: 1})) == 102
    keys = partition_keys("default", A)
    async with connect(empty_redis, timeout_s=10.0) as client:
        assert await client.xlen(keys.log) == 0
        assert await client.exists(keys.versions) == 0
    assert (await log.state()).trimmed == head
    # A reader behind it is told, whether something comes or not; one that has it goes on.
    with pytest.raises(SnapshotMismatch, match="no longer in change log"):
        await logs.reader("default").read({A: 101})
    assert await log.read({A: 102}) == []
    await log.append([upsert("a")])
    assert [entry.position for entry in await logs.reader("default").read({A: 102})] == [103]
    with pytest.raises(SnapshotMismatch, match="changes 1 to 102 of partition"):
        await logs.reader("default").read({A: 0})
    # Partly, and not beyond the end.
    await log.append([upsert("a"), delete(ids[5], base_version=6), upsert(ids[6])])
    part = Watermark(head.log_id).advanced({A: 105})
    assert (await log.trim(part), await log.trim(part)) == (3, 0)
    async with connect(empty_redis, timeout_s=10.0) as client:
        assert await client.hgetall(keys.versions) == {ids[6].encode(): b"106"}
    assert await log.trim(part.advanced({A: 1_000})) == 1
    assert (await log.state()).trimmed.positions[A] == 106
    with pytest.raises(SnapshotMismatch, match="the current log is"):
        await log.trim(Watermark("0" * 32, head.positions))


async def test_keys_of_a_partition_share_a_slot(log: RedisLog) -> None:
    slots = set()
    for collection in ("default", "0-shop_x"):
        for partition in range(64):
            keys = partition_keys(collection, partition)
            names = (keys.meta, keys.log, keys.versions, keys.done("i", "k}"), keys.asked("i", ""))
            of_partition = {key_slot(name.encode()) for name in names}
            assert len(of_partition) == 1
            slots |= of_partition
    assert len(slots) > 100


async def test_without_redis_every_call_is_unsupported(tmp_path: Path) -> None:
    logs = ChangeLogs(Store(tmp_path), "", who="a test")
    assert not logs
    with pytest.raises(Unsupported, match="start the service with --redis URL"):
        logs.log("default")
    await logs.close()


async def test_collections_have_separate_logs(logs: ChangeLogs, log: RedisLog) -> None:
    await log.append([upsert("a")])
    other = logs.log("other")
    assert logs.log("default") is log and other is not log
    assert (await other.state()).head.log_id != (await log.state()).head.log_id
    assert await other.read(ALL) == []


async def test_an_append_ends_at_its_timeout(log: RedisLog, empty_redis: str) -> None:
    await log.state()
    with pytest.raises(NotReady, match="nothing was appended: try again"):
        await log.append([upsert("a")], timeout_s=0.0)
    async with connect(empty_redis, timeout_s=10.0) as redis:
        await redis.client_pause(60_000, all=False)
        with pytest.raises(
            NotReady, match="may have been appended: try again with the same idempotency key"
        ):
            await log.append([upsert("a")], timeout_s=0.5)
        await redis.client_unpause()
    await log.append([upsert("b")])


async def test_a_reader_can_be_cancelled_at_any_time(log: RedisLog) -> None:
    await log.state()
    for turns in range(0, 40, 3):
        reading = asyncio.create_task(log.read({A: 0}, wait_s=60))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 10)
