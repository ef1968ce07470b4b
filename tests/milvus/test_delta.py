"""Live changes in a real Milvus: always those of the log, even if writers die."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import numpy as np
import pytest

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.retry import Backoff
from nearline.store.snapshot import partition_of
from retrieval.changelog.records import ChangeEntry
from retrieval.protocols import metrics
from retrieval.protocols.watermark import Watermark

pytest.importorskip("pymilvus", reason="no client of Milvus: make test-milvus")
from retrieval.milvus import delta as applying
from tests.milvus.fixtures import servers
from tests.milvus.live_collection import (
    IDS,
    Document,
    Killed,
    Living,
    applied,
    delete,
    drawn,
    in_batches_of,
    living,
    patch,
    state_of,
    suspended,
    upsert,
)
from tests.retrieval.changelog.memory_log import MemoryLog

pytestmark = [pytest.mark.milvus, pytest.mark.timeout(300)]


def histories(count: int) -> list[tuple[str, int]]:
    """Returns servers and seeds; one of 2.3.5 takes ten seconds for each, so it has fewer."""
    return [
        (server, seed)
        for server in servers()
        for seed in range(count if server == "lite" else min(count, 2))
    ]


OLD = [upsert(one, f"old {one}", {"year": 1}, chunks=3) for one in IDS[:4]]


def old_documents() -> dict[str, Document]:
    found = {}
    for change in OLD:
        document = applied(None, ChangeEntry(0, 0, 0, change), datetime.now(UTC))
        assert document is not None
        found[change.document_id] = document
    return found


def advanced(model: dict[str, Document], entries: Sequence[ChangeEntry]) -> None:
    for entry in entries:
        after = applied(model.pop(entry.change.document_id, None), entry, datetime.now(UTC))
        if after is not None:
            model[entry.change.document_id] = after


@pytest.mark.parametrize(("milvus_uri", "seed"), histories(6), indirect=["milvus_uri"])
async def test_after_each_batch_milvus_has_what_the_log_says(milvus_uri: str, seed: int) -> None:
    chance = Random(seed)
    async with living(milvus_uri, OLD) as one:
        await one.write(*drawn(chance, IDS, 40))
        model = old_documents()
        delta = await one.delta()
        done: list[ChangeEntry] = []
        for batch in in_batches_of(chance, await one.entries(), 12):
            await delta.apply(batch)
            advanced(model, batch)
            done += batch
            assert await one.documents() == model
            assert delta.view.applied.watermark.positions == reached(done)
            assert one.context.seen is not None
        # Whatever is applied again, there or in another process, changes nothing.
        another = await one.delta()
        assert another.view.applied.watermark == delta.view.applied.watermark
        one.lock.holder = None
        for each in (delta, another):
            one.lock.holder = None
            await each.apply(chance.sample(done, 5))
            await each.apply(done)
            assert await one.documents() == model
        assert delta.stats().changes == len(done)


def reached(entries: Sequence[ChangeEntry]) -> tuple[int, ...]:
    last = {entry.partition: entry.position for entry in entries}
    return Watermark("").advanced(last).positions


@pytest.mark.parametrize(("milvus_uri", "seed"), histories(12), indirect=["milvus_uri"])
async def test_a_takeover_loses_nothing_and_never_goes_back_in_time(
    milvus_uri: str, seed: int
) -> None:
    chance = Random(seed)
    async with living(milvus_uri, OLD) as one:
        await one.write(*drawn(chance, IDS, 40))
        entries = await one.entries()
        histories = history_of(entries)
        floors = dict.fromkeys(IDS, 0)
        deaths = 0
        while True:
            delta = await one.delta()
            at = delta.view.applied.watermark
            left = [entry for entry in entries if entry.position > at.positions[entry.partition]]
            if not left:
                break
            one.client.writes_left = chance.randint(0, 12) if deaths < 6 else None
            one.client.carried_out = chance.random() < 0.5
            try:
                for batch in in_batches_of(chance, left, 12):
                    await delta.apply(batch)
                    check_not_back(await one.documents(), histories, floors)
            except Killed:
                deaths += 1
                # Its right to write lapses.
                one.lock.holder = None
            one.client.writes_left = None
            check_not_back(await one.documents(), histories, floors)
        model = old_documents()
        advanced(model, entries)
        assert await one.documents() == model
        assert deaths


def history_of(entries: Sequence[ChangeEntry]) -> Mapping[str, list[tuple[int, Document | None]]]:
    """Returns what each document is from each position of its partition on."""
    old = old_documents()
    histories: dict[str, list[tuple[int, Document | None]]] = {
        one: [(0, old.get(one))] for one in IDS
    }
    for entry in entries:
        history = histories[entry.change.document_id]
        history.append((entry.position, applied(history[-1][1], entry, datetime.now(UTC))))
    return histories


def check_not_back(
    documents: Mapping[str, Document],
    histories: Mapping[str, list[tuple[int, Document | None]]],
    floors: dict[str, int],
) -> None:
    """Checks that each document matches some position, not before the last one seen."""
    for name, history in histories.items():
        shown = documents.get(name)
        positions = [at for at, was in history if was == shown and at >= floors[name]]
        assert positions, f"{name} is {shown}, after {floors[name]} of {history}"
        floors[name] = positions[0]


@pytest.mark.parametrize(("milvus_uri", "seed"), histories(4), indirect=["milvus_uri"])
async def test_one_of_two_writes_and_the_other_takes_over(
    milvus_uri: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    monkeypatch.setattr(applying, "_POLL", Backoff(0.01, 0.5, factor=1.5))
    async with living(milvus_uri, OLD) as one:
        await one.write(*drawn(chance, IDS, 40))
        entries = await one.entries()
        first, second = await one.delta(), await one.delta()
        assert await (await one.made[0].lease(state_of(one.name))).acquire()
        killed = asyncio.Event()

        async def apply_first() -> None:
            one.client.writes_left = chance.randint(4, 12)
            one.client.carried_out = chance.random() < 0.5
            try:
                for batch in in_batches_of(Random(1), entries, 8):
                    await first.apply(batch)
            except Killed:
                one.client.writes_left = None
                killed.set()

        async def apply_second() -> None:
            for batch in in_batches_of(Random(2), entries, 8):
                await second.apply(batch)

        writing = asyncio.ensure_future(apply_first())
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(apply_second())
        await killed.wait()
        assert not waiting.done()
        one.lock.holder = None
        await asyncio.gather(writing, waiting)
        model = old_documents()
        advanced(model, entries)
        assert await one.documents() == model
        assert second.view.applied.watermark.positions == reached(entries)


async def test_waiting_too_long_raises_and_a_retry_continues(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "_WRITER_TIMEOUT_S", 0.2)
    async with living(milvus_uri) as one:
        await one.write(upsert(IDS[0]))
        entries = await one.entries()
        first, second = await one.delta(), await one.delta()
        one.lock.holder = one.lock.lease(1)
        with pytest.raises(NotReady, match="another router holds the lease to write"):
            await second.apply(entries)
        assert await one.documents() == {}
        one.lock.holder = None
        # A server shows what was written after longer than that.
        monkeypatch.undo()
        await first.apply(entries)
        await second.apply(entries)
        assert list(await one.documents()) == [IDS[0]]
        assert second.view.applied.watermark == first.view.applied.watermark


# Before it takes over, writes the state that names the log, the rows, deletes surplus rows, and
# writes the state.
@pytest.mark.parametrize("at", range(5))
async def test_a_suspended_writer_does_not_overwrite_its_successor(
    milvus_uri: str, at: int
) -> None:
    name = OLD[0].document_id
    async with living(milvus_uri, OLD) as one, suspended(milvus_uri, at) as client:
        await one.write(upsert(name, "v1"), upsert(name, "v2", chunks=4, first=7.5))
        v1, v2 = await one.entries()
        first, second = await one.delta(client=client), await one.delta()
        writing = asyncio.create_task(first.apply([v1]))
        await client.until_reached(writing)
        one.lock.holder = None
        await second.apply([v1, v2])
        client.resumed.set()
        await asyncio.wait((writing,))
        # Whoever had not taken over yet finds nothing left to write.
        assert isinstance(writing.exception(), NearlineError) == (at > 0)
        documents, state = await one.documents(), await one.states.read(one.name)
        assert (documents[name].text, documents[name].vector) == ("v2", [7.5, 8.5, 9.5, 10.5])
        assert state is not None
        assert state.positions == second.view.applied.watermark.positions == reached([v1, v2])
        query = np.array([[1, 0, 0, 0]], np.float32)
        (hits,) = await one.client.search(one.name, query, 4, fields=["document"], seen=0)
        assert {hit.fields["document"] for hit in hits} == {name}
        await first.apply([v1, v2])
        assert await one.documents() == documents
        await one.write(upsert(name, "v3"))
        with contextlib.suppress(NearlineError):
            await second.apply((await one.entries())[2:])
        await second.apply((await one.entries())[2:])
        assert (await one.documents())[name].text == "v3"


async def test_nothing_is_written_if_the_lease_may_expire(milvus_uri: str) -> None:
    async with living(milvus_uri) as one:
        await one.write(upsert(IDS[0]))
        delta = await one.delta()
        (collection,) = one.made
        lease = await collection.lease(state_of(one.name))
        lease.short = True  # type: ignore[attr-defined]
        with pytest.raises(NotReady, match="may expire before they are written"):
            await delta.apply(await one.entries())
        assert await one.documents() == {}
        assert one.lock.holder is None, "others may try"
        lease.short = False  # type: ignore[attr-defined]
        await delta.apply(await one.entries())
        assert list(await one.documents()) == [IDS[0]]


async def test_unstorable_changes_are_skipped(milvus_uri: str) -> None:
    name, other = IDS[0], IDS[1]
    counted = metrics.changes_refused.labels("default")
    before = counted._value.get()
    async with living(milvus_uri) as one:
        await one.write(upsert(name, "kept"), upsert("with\x01sign"))
        await one.write(replace(upsert(name), title="x" * 70_000))
        await one.write(patch(name, {"tags": "y" * 70_000}), upsert(other))
        await one.write(patch(name, {"year": 7}))
        delta = await one.delta()
        entries = await one.entries()
        await delta.apply(entries[:1])
        await delta.apply(entries)
        documents = await one.documents()
        assert {one: each.text for one, each in documents.items()} == {name: "kept", other: "new"}
        assert documents[name].attributes == {"year": 7}
        assert counted._value.get() == before + 3


async def test_reads_handle_new_expiries_and_lists(milvus_uri: str) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    async with living(milvus_uri) as one:
        delta = await one.delta()
        assert (one.context.expiring, one.context.seen) == (False, None)
        assert "tags" in one.context.single_valued
        await one.write(upsert(IDS[0], "a", {"tags": ["a", "b"]}, expires=later))
        await delta.apply(await one.entries())
        known = [(one.context.expiring, one.context.single_valued, one.context.seen)]
        assert known[0][0] and "tags" not in known[0][1]
        await one.delta()
        assert known == [(one.context.expiring, one.context.single_valued, one.context.seen)]


async def test_changes_of_a_previous_log_require_that_the_new_log_continues_it(
    milvus_uri: str,
) -> None:
    async with living(milvus_uri) as one:
        await one.write(upsert(IDS[0], "of the first log"))
        await (await one.delta()).apply(await one.entries())
        first, one.log = one.log, MemoryLog()
        one.logs, one.lock.holder = [one.log.log_id], None
        with pytest.raises(SnapshotMismatch, match=f"{first.log_id}.*export --again, or bring"):
            await one.delta()
        one.logs = [first.log_id, one.log.log_id]
        await one.write(upsert(IDS[1], "of the second"), delete(IDS[5]))
        delta = await one.delta()
        await delta.apply(await one.entries())
        texts = {name: each.text for name, each in (await one.documents()).items()}
        assert texts == {IDS[0]: "of the first log", IDS[1]: "of the second"}
        state = await one.states.read(one.name)
        assert state is not None and state.log_id == one.log.log_id
        assert state.positions == delta.view.applied.watermark.positions


async def test_a_log_that_lost_changes_of_milvus_is_not_followed(milvus_uri: str) -> None:
    async with living(milvus_uri) as one:
        await one.write(upsert(IDS[0]), upsert(IDS[1]))
        delta = await one.delta()
        await delta.apply(await one.entries())
        one.log.set_back(partition_of(IDS[0]), 0)
        with pytest.raises(SnapshotMismatch, match=r"has lost.*ends before.*export --again"):
            await one.delta()
        # Also when it has come as far again, with other changes.
        await one.write(*(upsert(name, "another") for name in IDS))
        with pytest.raises(SnapshotMismatch, match="has lost"):
            await one.delta()
        # Written again it has none of them.
        await one.states.write(one.name, state_of(one.name, 2, words=one.words))
        await one.delta()
        one.lock.holder = None
        # A reader that was told so by the log has the same said.
        delta = await one.delta()
        await delta.apply(await one.entries())
        delta.set_back("of a test")
        shard = applying.follow_snapshot(one.made[-1], lambda live: None)
        with pytest.raises(SnapshotMismatch, match=r"of a test"):
            await shard.new_delta(Watermark(one.log.log_id), one.log)


async def test_a_new_export_is_followed_from_its_start(milvus_uri: str) -> None:
    async with living(milvus_uri) as one:
        await one.write(upsert(IDS[0]))
        delta = await one.delta()
        await delta.apply(await one.entries())
        writing = replace(state_of(one.name, 2, words=one.words), whole=False)
        await one.states.write(one.name, writing)
        await one.write(upsert(IDS[1]))
        left = await one.entries(delta.view.applied.watermark)
        async with asyncio.timeout(10):
            # What is at hand may be older for a moment.
            await _until_seen(one, whole=False)
        with pytest.raises(NotReady, match="missing or incomplete: its export is running"):
            await delta.apply(left)
        await one.client.delete(one.name, "chunk >= 0")
        await one.states.write(one.name, replace(writing, whole=True))
        await _until_seen(one, whole=True)
        with pytest.raises(SnapshotMismatch, match="was exported again"):
            await delta.apply(left)
        delta = await one.delta()
        assert delta.view.applied.watermark.positions == Watermark("").positions
        await delta.apply(await one.entries())
        assert sorted(await one.documents()) == sorted(IDS[:2])


async def _until_seen(one: Living, *, whole: bool) -> None:
    while True:
        state = await one.states.read(one.name, newest=False)
        if state is not None and (state.started_us, state.whole) == (2, whole):
            return
        await asyncio.sleep(0.01)
