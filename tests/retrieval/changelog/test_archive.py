"""The archive contains every change once and in order, with any writers and stores."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nearline.errors import AlreadyExists, NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.internal.v1 import change_pb2
from nearline.store.files import StoreFiles
from nearline.store.removal import remove_files, remove_older_records
from nearline.store.snapshot import PARTITIONS, Store, partition_of
from nearline.v1 import snapshot_pb2
from retrieval.changelog import archive as archiving
from retrieval.changelog.archive import Archive, archive_changes
from retrieval.changelog.archive_segments import LogSegment, archive_row
from retrieval.changelog.change_log import LogDiverged, LogState, PartitionEnd
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind, ChangeWrite
from retrieval.changelog.retention import common_watermark, contained_watermark, trim_log
from retrieval.protocols.watermark import Watermark
from retrieval.snapshots import aliases
from tests.nearline.store.conftest import files, s3, s3_endpoint  # noqa: F401  fixtures
from tests.retrieval.changelog.memory_log import MemoryLog

SNAPSHOT = "20261125T00000{}Z-abcdef"


def _upsert(key: str) -> Change:
    return Change(
        document_id=key,
        kind=ChangeKind.UPSERT,
        title=f"Title {key}",
        text=f"Text {key}.",
        attributes={"n": 1, "tags": ["a", "b"]},
        bounds=np.array([(0, 3), (3, 7)], np.int64),
        vectors={"m": np.arange(6, dtype=np.float32).reshape(2, 3)},
        expires=datetime(2030, 1, 1, tzinfo=UTC),
    )


async def _append(log: MemoryLog, keys: Sequence[str]) -> None:
    for key in keys:
        await log.append([ChangeWrite(_upsert(key))])


async def _all(log: MemoryLog) -> list[ChangeEntry]:
    trimmed = (await log.state()).trimmed
    return await log.read(dict(enumerate(trimmed.positions)), limit=1 << 30)


def _places(entries: Sequence[ChangeEntry]) -> list[tuple[int, int, int, str]]:
    return sorted((e.partition, e.position, e.time_us, e.change.document_id) for e in entries)


@pytest.fixture
def store(files: StoreFiles) -> Store:  # noqa: F811
    return Store(files)


async def test_the_archive_returns_the_appended_changes(store: Store) -> None:
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(200)])
    kept = await archive_changes(store, log)
    assert kept.end() == (await log.state()).head
    entries = list(kept.entries(Watermark(log.log_id)))
    assert _places(entries) == _places(await _all(log))
    for partition in range(PARTITIONS):
        positions = [e.position for e in entries if e.partition == partition]
        assert positions == list(range(1, len(positions) + 1))
    found, wanted = entries[0].change, _upsert(entries[0].change.document_id)
    for field in dataclasses.fields(Change):
        if field.name not in ("bounds", "vectors"):
            assert getattr(found, field.name) == getattr(wanted, field.name)
    assert np.array_equal(found.bounds, wanted.bounds)
    assert np.array_equal(found.vectors["m"], wanted.vectors["m"])


async def test_segments_continue_each_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_CHANGES", 20)
    monkeypatch.setattr(archiving, "_ENTRIES_PER_READ", 1)
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(300)])
    kept = await archive_changes(store, log)
    numbers = kept.numbers()
    assert len(numbers) > 3 and numbers == list(range(1, len(numbers) + 1))
    stored = [store.read_log_segment("default", log.log_id, number) for number in numbers]
    made_us = [LogSegment(data, "segment").made_us for data in stored]
    fresh = Archive(store, "default", log.log_id)
    assert fresh.made_us() == made_us[-1] > made_us[1]
    bounds = [fresh.bounds(number) for number in numbers]
    assert [after for _, after in bounds[:-1]] == [before for before, _ in bounds[1:]]
    middle = bounds[2][0].advanced({0: bounds[2][0].positions[0] + 1})
    wanted = [e for e in await _all(log) if e.position > middle.positions[e.partition]]
    assert _places(list(fresh.entries(middle))) == _places(wanted)
    upto = bounds[3][1]
    wanted = [e for e in wanted if e.position <= upto.positions[e.partition]]
    assert _places(list(fresh.entries(middle, upto))) == _places(wanted)
    pending = fresh.pending(middle)
    later = [e for e in await _all(log) if e.position > middle.positions[e.partition]]
    assert pending == (len(later), min(e.time_us for e in later))


@pytest.mark.parametrize(
    ("contained", "pending"), [(0, (3, 10)), (1, (2, 20)), (2, (1, 30)), (3, (0, 0))]
)
async def test_pending_changes_of_a_segment_exclude_those_that_a_snapshot_contains(
    tmp_path: Path, contained: int, pending: tuple[int, int]
) -> None:
    times = iter((10, 20, 30))
    log = MemoryLog(clock=lambda: next(times))
    await _append(log, ["a", "a", "a"])
    archive = await archive_changes(Store(tmp_path), log)
    start = Watermark(log.log_id).advanced({partition_of("a"): contained})
    assert archive.pending(start) == pending


async def test_archivers_at_once_agree(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_CHANGES", 30)
    monkeypatch.setattr(archiving, "_ENTRIES_PER_READ", 2)
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(150)])
    done = await asyncio.gather(*(archive_changes(store, log) for _ in range(4)))
    await _append(log, [f"k{n}" for n in range(50)])
    done += await asyncio.gather(*(archive_changes(store, log) for _ in range(4)))
    head = (await log.state()).head
    assert done[-1].end() == head
    entries = _places(list(Archive(store, "default", log.log_id).entries(Watermark(log.log_id))))
    assert entries == _places(await _all(log))
    assert max(Counter(entries).values()) == 1


async def test_a_segment_never_replaces_another(store: Store) -> None:
    log = MemoryLog()
    await _append(log, ["a"])
    kept = await archive_changes(store, log)
    start = Watermark(log.log_id)
    with pytest.raises(AlreadyExists, match="has grown"):
        kept.add([], start, start)


async def test_an_empty_log_is_archived_once(store: Store) -> None:
    log = MemoryLog()
    for _ in range(3):
        kept = await archive_changes(store, log)
    assert kept.numbers() == [1]
    assert kept.end() == Watermark(log.log_id)
    await _append(log, ["a"])
    kept = await archive_changes(store, log)
    assert [e.change.document_id for e in kept.entries(Watermark(log.log_id))] == ["a"]


async def test_segments_contained_in_all_snapshots_are_dropped(store: Store) -> None:
    log = MemoryLog()
    await _append(log, ["a", "b"])
    first = (await archive_changes(store, log)).end()
    await _append(log, ["c"])
    kept = await archive_changes(store, log)
    assert kept.drop(Watermark(log.log_id)) == 0
    assert kept.drop(first) == 1
    with pytest.raises(SnapshotMismatch, match="lacks changes 1 to 1"):
        list(kept.entries(Watermark(log.log_id)))
    assert [e.change.document_id for e in kept.entries(first)] == ["c"]
    second = kept.end()
    assert kept.drop(second) == 1
    assert kept.drop(second) == 0
    await log.trim(second)
    assert (await archive_changes(store, log)).end() == second
    await _append(log, ["d"])
    again = await archive_changes(store, log)
    assert [e.change.document_id for e in again.entries(second)] == ["d"]
    assert again.drop(again.end()) == 2
    assert len(again.numbers()) == 1


async def test_segments_that_another_process_drops_meanwhile_are_not_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    await _append(log, ["a"])
    first = (await archive_changes(store, log)).end()
    await _append(log, ["b"])
    second = (await archive_changes(store, log)).end()

    def late() -> Archive:
        """Returns an archive whose list of segments is from before the drop."""
        found = Archive(store, log.collection, log.log_id)
        lists = [listed]
        monkeypatch.setattr(
            found, "numbers", lambda: lists.pop() if lists else Archive.numbers(found)
        )
        return found

    listed = Archive(store, log.collection, log.log_id).numbers()
    assert len(listed) == 2
    assert Archive(store, log.collection, log.log_id).drop(first) == 1
    assert late().drop(first) == 0
    assert [e.change.document_id for e in late().entries(first)] == ["b"]
    assert late().pending(first).changes == 1
    with pytest.raises(SnapshotMismatch, match="lacks changes 1 to 1"):
        list(late().entries(Watermark(log.log_id)))
    assert Archive(store, log.collection, log.log_id).drop(second) == 1
    assert late().drop(second) == 0
    assert list(late().entries(second)) == []
    with pytest.raises(SnapshotMismatch, match="lacks changes 1 to 1"):
        list(late().entries(first))


async def test_a_collection_dropped_while_its_archive_is_dropped_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    await _append(log, ["a"])
    archive = await archive_changes(store, log)
    assert archive.bounds(1)[1] == archive.end()
    lists = [archive.numbers()]
    monkeypatch.setattr(archive, "numbers", lambda: lists.pop() if lists else [])
    assert archive.drop(archive.bounds(1)[1]) == 0


async def test_a_log_that_lost_archived_changes_is_rejected(store: Store) -> None:
    log = MemoryLog()
    await _append(log, ["a", "a"])
    kept = await archive_changes(store, log)
    partition = next(p for p, at in enumerate(kept.end().positions) if at)
    log.set_back(partition, 1)
    with pytest.raises(SnapshotMismatch, match="it has lost changes"):
        await archive_changes(store, log)


async def test_a_segment_keeps_the_nonces_of_partitions_that_it_has_no_change_of(
    store: Store,
) -> None:
    class Chained(MemoryLog):
        async def state(self) -> LogState:
            nonces = tuple(found.get(number, b"") for number in range(PARTITIONS))
            return (await super().state())._replace(nonces=nonces)

    log = Chained()
    await _append(log, ["a", "b"])
    first, second = partition_of("a"), partition_of("b")
    found = {first: b"n1", second: b"n2"}
    archive = Archive(store, "default", log.log_id)
    for entry in sorted(await _all(log), key=lambda one: one.partition != first):
        end = archive.end()
        row = archive_row(entry._replace(nonce=found[entry.partition]))
        archive.add([row], end, end.advanced({entry.partition: 1}))
    assert archive.numbers() == [1, 2]
    assert archive.ends() == {first: PartitionEnd(1, b"n1"), second: PartitionEnd(1, b"n2")}
    head = archive.end()
    await archiving._archive_upto(log, archive, head)
    # Another log of the same length.
    found[first] = b"other"
    with pytest.raises(LogDiverged, match=f"lacks archived changes of partition {first}"):
        await archiving._archive_upto(log, archive, head)


async def test_a_late_archiver_writes_no_change_of_a_dropped_collection_into_a_new_one(
    store: Store,
) -> None:
    def register(number: int, log: MemoryLog) -> None:
        record = change_pb2.LogRecord(number=number, log_id=log.log_id)
        store.create_log_record("default", record)
        aliases.create(store, "default", _publish(store, number, None))

    log, successor = MemoryLog(), MemoryLog()
    register(1, log)
    await _append(log, ["a"])
    end = (await archive_changes(store, log)).end()
    late = Archive(store, "default", log.log_id)
    row = archive_row((await _all(log))[0])
    dropped = aliases.drop(store, "default")
    remove_files(store, "default", dropped)
    remove_older_records(store, "default", dropped)
    register(1, successor)
    with pytest.raises(NotFound, match=f"was dropped, with change log {log.log_id}"):
        late.add([row], Watermark(log.log_id), end)
    assert store.files.names(f"default/log/{log.log_id}") == []
    assert (await archive_changes(store, successor)).numbers() == [1]


def test_an_invalid_segment_is_named() -> None:
    with pytest.raises(SnapshotCorrupt, match="segment 7 is not a readable segment"):
        LogSegment(b"PAR1 torn", "segment 7")


def _publish(store: Store, number: int, watermark: Watermark | None) -> str:
    name = SNAPSHOT.format(number)
    manifest = snapshot_pb2.Manifest(schema_version=1, snapshot_id=name, collection="default")
    if watermark is not None:
        manifest.change_log_id = watermark.log_id
        manifest.watermark = watermark.encode()
    from nearline.store.json_records import message_to_json

    path = f"default/snapshots/{name}/manifest.json"
    store.files.create(path, message_to_json(manifest).encode())
    return name


async def test_only_changes_in_every_snapshot_and_the_archive_are_trimmed(store: Store) -> None:
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(100)])
    assert await trim_log(store, log) == 0  # Nothing is published.
    head = (await archive_changes(store, log)).end()
    less = Watermark(log.log_id, tuple(max(0, at - 1) for at in head.positions))
    _publish(store, 1, head)
    older = _publish(store, 2, less)
    await _append(log, ["not archived"])
    assert await trim_log(store, log) == sum(less.positions)
    assert (await log.state()).trimmed == less
    store.remove_snapshot("default", older)
    assert await trim_log(store, log) == sum(head.positions) - sum(less.positions)
    assert await trim_log(store, log) == 0
    assert (await log.state()).trimmed == head


async def test_changes_that_are_not_archived_stay_though_every_snapshot_contains_them(
    store: Store,
) -> None:
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(100)])
    archived = (await archive_changes(store, log)).end()
    await _append(log, [f"later{n}" for n in range(100)])
    head = (await log.state()).head
    _publish(store, 1, head)
    assert await trim_log(store, log) == sum(archived.positions) < sum(head.positions)
    assert (await log.state()).trimmed == archived


async def test_a_snapshot_whose_manifest_cannot_be_read_prevents_trimming(store: Store) -> None:
    log = MemoryLog()
    await _append(log, [f"k{n}" for n in range(20)])
    head = (await archive_changes(store, log)).end()
    _publish(store, 1, head)
    store.files.create(f"default/snapshots/{SNAPSHOT.format(2)}/manifest.json", b"{ damaged")
    assert common_watermark(store, "default", log.log_id) == Watermark(log.log_id)
    assert await trim_log(store, log) == 0


async def test_a_snapshot_without_a_log_prevents_trimming(store: Store) -> None:
    log = MemoryLog()
    await _append(log, ["a"])
    head = (await archive_changes(store, log)).end()
    _publish(store, 1, head)
    assert common_watermark(store, "default", log.log_id) == head
    _publish(store, 2, None)
    assert common_watermark(store, "default", log.log_id) == Watermark(log.log_id)
    assert await trim_log(store, log) == 0


def test_a_later_log_contains_the_log_that_it_continues() -> None:
    old, new, foreign = "a" * 32, "b" * 32, "c" * 32
    head = Watermark(new, (5,) * PARTITIONS)
    manifest = snapshot_pb2.Manifest(change_log_id=new, watermark=head.encode())
    assert contained_watermark(manifest, new, [old, new]) == head
    assert contained_watermark(manifest, old, [old, new]).covers(Watermark(old, (9,) * PARTITIONS))
    manifest = snapshot_pb2.Manifest(change_log_id=old, watermark=Watermark(old).encode())
    assert contained_watermark(manifest, new, [old, new]) == Watermark(new)
    manifest = snapshot_pb2.Manifest(change_log_id=foreign, watermark=Watermark(foreign).encode())
    assert contained_watermark(manifest, new, [old, new]) == Watermark(new)


async def test_a_segment_is_read_once_however_often_what_is_pending_is_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    ends = []
    for name in "abcd":
        await _append(log, [name, name])
        ends.append((await archive_changes(store, log)).end())
    read = []
    real = Store.read_log_segment

    def counted(self: Store, collection: str, log_id: str, number: int) -> bytes:
        read.append(number)
        return real(self, collection, log_id, number)

    monkeypatch.setattr(Store, "read_log_segment", counted)
    archiving._summarize.cache_clear()  # As in another process.

    def pending(start: Watermark) -> int:
        return Archive(store, log.collection, log.log_id).pending(start).changes

    assert pending(Watermark(log.log_id)) == 8
    assert sorted(set(read)) == [1, 2, 3, 4] and len(read) <= 4
    read.clear()
    assert [pending(end) for end in ends] == [6, 4, 2, 0]
    assert read == []
    # In the middle of a segment, the segment is read.
    partition = next(p for p, at in enumerate(ends[0].positions) if at)
    assert pending(Watermark(log.log_id).advanced({partition: 1})) == 7
    assert read == [1]


async def test_changes_that_another_process_archives_meanwhile_are_not_lost_ones(
    store: Store,
) -> None:
    class Overtaken(MemoryLog):
        async def state(self) -> LogState:
            found = await super().state()
            if not overtaken:
                overtaken.append(True)
                await _append(self, ["b"])
                await archive_changes(store, self)
            return found

    overtaken: list[bool] = []
    log = Overtaken()
    await _append(log, ["a"])
    found = await archive_changes(store, log)
    assert sum(found.end().positions) == 2
