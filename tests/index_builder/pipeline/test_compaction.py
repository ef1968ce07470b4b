"""Compaction: when it is due, what it inherits and what it frees."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from index_builder.documents.attribute_columns import MAX_FIELDS
from index_builder.maintenance import Maintenance
from index_builder.options.build_options import Mode
from index_builder.pipeline.compaction import (
    CompactionCheck,
    LogExtent,
    assess_changes,
    check_compaction,
    compact,
    compaction_options,
)
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from nearline.errors import Conflict, InvalidRequest, SnapshotMismatch, Unsupported
from nearline.store.json_records import message_to_json
from nearline.store.manifest_files import file_entry
from nearline.store.snapshot import RERANKER_FILE
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive, PendingChanges, archive_changes
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.watermark import Watermark
from retrieval.snapshots import aliases, retention
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.conftest import TEXTS
from tests.nearline.store.conftest import s3, s3_endpoint  # noqa: F401  fixtures
from tests.retrieval.changelog.memory_log import MemoryLog

EMPTY = LogExtent(0, 0)


def test_compaction_is_due_by_number_or_age_of_changes() -> None:
    now_us = int(time.time() * 1e6)
    hour = 3_600

    def assess(changes: int, oldest_us: int, log: LogExtent = EMPTY) -> CompactionCheck:
        return assess_changes(PendingChanges(changes, oldest_us), 100, log, 0.2, hour, 4 << 20)

    assert assess(0, 0).reason == ""
    assert assess(20, now_us).reason == ""
    assert "21 changes: more than 20% of 100 documents" in assess(21, now_us).reason
    old = assess(1, now_us - 7_200_000_000)
    assert "2.0 hours old" in old.reason and 7_199 < old.age_s < 7_210


def test_a_large_log_makes_compaction_due_once_a_tenth_of_it_is_newer() -> None:
    def reason(changes: int, log: LogExtent) -> str:
        pending = PendingChanges(changes, int(time.time() * 1e6))
        return assess_changes(pending, 1_000_000, log, 0.2, 1e12, 4 << 20).reason

    assert reason(11, LogExtent(100, 4 << 20)) == ""
    large = LogExtent(100, 5 << 20)
    assert reason(11, large) == "the change log takes 5 MiB: more than 4 MiB"
    # After a compaction, the log is as large until older snapshots have gone.
    assert reason(0, large) == reason(10, large) == ""


async def test_only_changes_missing_from_the_current_snapshot_make_compaction_due(
    living: Living,
) -> None:
    for number in range(5):
        await living.upsert(f"new{number}", f"New {number}.")
    found = await check_compaction(living.store, living.log, 0.2, 1e12)
    assert (found.changes, found.documents, found.reason) == (5, 20, found.reason)
    assert "5 changes" in found.reason
    await living.compact()
    assert (await check_compaction(living.store, living.log, 0.2, 1e12)).changes == 0
    await living.delete("new0")
    found = await check_compaction(living.store, living.log, 0.2, 1.0)
    assert found.changes == 1 and "hours old" in found.reason


async def test_a_compaction_keeps_the_options_of_the_snapshot(living: Living) -> None:
    before = living.manifest
    tuned = before.__class__()
    tuned.CopyFrom(before)
    tuned.fusion.dense_weight, tuned.fusion.origin = 0.31, "tuned"
    tuned.quality.tuning_queries = 17
    tuned.answers.questions = 40
    tuned.reranker.weight, tuned.reranker.candidates = 0.5, 10
    folder = living.store.snapshot_folder("default", before.snapshot_id)
    place, reranker = folder / "manifest.json", folder / RERANKER_FILE
    reranker.write_bytes(b"weights")
    tuned.files.append(file_entry(reranker, folder))
    place.write_text(message_to_json(tuned))
    await living.upsert("d1", "Changed.", {"price": 5})
    living.embedder.texts.clear()
    await living.compact()
    after = living.manifest
    assert living.embedder.texts == []
    assert living.texts() == {**TEXTS, "d1": "Changed."}
    assert after.parent_snapshot_id == before.snapshot_id
    assert (after.fusion.dense_weight, after.fusion.origin) == (0.31, "tuned")
    assert (after.quality.tuning_queries, after.answers.questions) == (17, 40)
    assert after.reranker == tuned.reranker
    now = living.store.snapshot_folder("default", after.snapshot_id)
    assert (now / RERANKER_FILE).read_bytes() == b"weights"
    assert file_entry(now / RERANKER_FILE, now) in after.files
    assert len(after.shards) == 2
    assert after.chunking == before.chunking
    assert [source.sha256 for source in after.sources] == [s.sha256 for s in before.sources]
    # The attribute that only a live change has got its column; the kinds of before stay.
    kinds = {field.name: field.kind for field in after.attributes}
    assert kinds == {field.name: field.kind for field in before.attributes} | {
        "price": after.attributes[1].KIND_INT
    }


async def test_a_compaction_of_an_empty_collection_keeps_its_declared_attributes(
    tmp_path: Path,
) -> None:
    living = Living(tmp_path, shards=2)
    kind = snapshot_pb2.AttributeField.Kind
    declared = [
        snapshot_pb2.AttributeField(name="price", kind=kind.KIND_DOUBLE),
        snapshot_pb2.AttributeField(name="tags", kind=kind.KIND_STRING, is_list=True),
    ]
    await living.create_empty(fields=declared)
    living.clock.now = 20
    # Neither a price nor a list so far.
    await living.upsert("a", "Text a.", {"tags": "red"})
    manifest = living.store.manifest("default", await living.compact())
    assert (manifest.documents, list(manifest.attributes)) == (1, declared)


async def test_one_item_does_not_take_the_columns_of_all_others_for_good(living: Living) -> None:
    names = {field.name for field in living.manifest.attributes}
    for cycle in range(3):
        await living.upsert("d1", "One.", {f"c{cycle}_{n}": "x" for n in range(MAX_FIELDS)})
        await living.compact()
        assert len(living.manifest.attributes) <= MAX_FIELDS
    # Nobody has them any more, but for one: a few stay, so that filters on them are no error.
    await living.upsert("d1", "One.", {"c0_1": "x"})
    await living.compact()
    await living.compact()
    found = {field.name for field in living.manifest.attributes}
    assert len(found) == 128 and {*names, "c0_1"} <= found
    await living.upsert("d2", "Two.", {"new": 1.5})
    await living.compact()
    found = {field.name for field in living.manifest.attributes}
    assert len(found) == 128 and {*names, "c0_1", "new"} <= found


async def test_an_attribute_that_no_item_has_any_more_can_still_be_filtered_on(
    living: Living,
) -> None:
    await living.upsert("d1", "One.", {"sale": True})
    await living.compact()
    await living.upsert("d1", "One.")
    await living.compact()
    assert "sale" in {field.name for field in living.manifest.attributes}


async def test_attributes_of_several_kinds_do_not_stop_a_compaction(living: Living) -> None:
    await living.upsert("d1", "One.", {"odd": "text", "even": 2})
    await living.upsert("d2", "Two.", {"odd": 7})
    result = await compact(compaction_options(living.options), living.log, living.embedder)
    assert [field.name for field in living.manifest.attributes] == ["even", "from"]
    assert (
        result.merged is not None
        and (
            "'odd' is text in 1 document (first in 'd1', live changes) and a whole number in 1 "
            "document (first in 'd2', live changes): it cannot be filtered on"
        )
        in result.merged.notes
    )
    # An import meets the same attribute, in the snapshot.
    with pytest.raises(InvalidRequest, match=r"first in 'd1', snapshot [-0-9a-zTZ]+\)"):
        await living.build(living.corpus({"new": "New."}, 30, "more"), mode=Mode.MERGE)
    rows = living.rows()
    assert (rows["d1"]["attributes"], rows["d2"]["attributes"]) == (
        {"odd": "text", "even": 2},
        {"odd": 7},
    )


async def test_log_and_archive_drop_changes_that_every_snapshot_contains(living: Living) -> None:
    first = living.manifest.snapshot_id
    await living.upsert("d1", "Secret.")
    await living.delete("d1")
    await living.compact()
    assert (await living.log.state()).trimmed == Watermark(living.log.log_id)  # `first` has none.
    planned = retention.plan_prune(living.store, "default", 0, min_age=timedelta(0))
    assert {one.name: one.kept for one in planned}[first] == "target of a rollback"
    living.clock.now = 30
    await living.upsert("d2", "Two.")
    await living.compact()
    planned = retention.plan_prune(living.store, "default", 0, min_age=timedelta(0))
    retention.prune(living.store, "default", planned)
    assert first not in living.store.snapshot_ids("default")
    kept = Archive(living.store, "default", living.log.log_id)
    data = [
        living.store.read_log_segment("default", living.log.log_id, number)
        for number in kept.numbers()
    ]
    assert not any(b"Secret" in one for one in data)
    assert "d1" not in living.texts()
    await living.compact()
    # Of d1; the snapshot before has not that of d2.
    assert sum((await living.log.state()).trimmed.positions) == 2
    await living.build(living.folder / "corpus.jsonl", shards=2)
    assert "d1" not in living.texts() and living.texts()["d2"] == "Two."


async def test_another_model_is_refused(living: Living) -> None:
    options = compaction_options(living.options)
    with pytest.raises(SnapshotMismatch, match="fingerprint hash"):
        await compact(options, living.log, HashEmbedder(fingerprint="other"))
    with pytest.raises(Unsupported, match="embedding service"):
        await compact(options, living.log, None)


async def test_an_import_during_a_compaction_is_not_undone(living: Living) -> None:
    class Overtaken(HashEmbedder):
        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not overtaken:
                overtaken.append(True)
                newer = living.corpus({"only": "Only."}, 15, "newer")
                await living.build(newer, embedder=HashEmbedder(), shards=2)
            return await super().embed(*args, **kwargs)

    overtaken: list[bool] = []
    await living.upsert("new", "New.", vectors={})  # Has to be embedded.
    options = compaction_options(living.options)
    with pytest.raises(Conflict, match="run it again"):
        await compact(options, living.log, Overtaken())
    assert living.texts() == {"only": "Only.", "new": "New."}


async def test_of_two_concurrent_compactions_one_is_refused(living: Living) -> None:
    await living.upsert("d1", "Changed.")
    done = await asyncio.gather(living.compact(), living.compact(), return_exceptions=True)
    assert [type(one) for one in done if not isinstance(one, str)] == [Conflict]
    assert living.texts() == {**TEXTS, "d1": "Changed."}


class _Logs:
    """In-memory change logs of a store."""

    def __init__(self, logs: Mapping[str, MemoryLog]) -> None:
        self._logs = logs

    def log(self, collection: str) -> MemoryLog:
        return self._logs[collection]


async def test_maintenance_archives_compacts_and_trims(living: Living) -> None:
    chosen = UpkeepSettings.load(
        {"store": living.options.store, "golden_queries": 0, "age": "100000d", "share": 0.2}
    )
    logs = _Logs({"default": living.log})
    # Of several services, the one of the snapshot's model is asked.
    embedders = Embedders({"o": HashEmbedder(fingerprint="other"), "it": living.embedder})
    maintenance = Maintenance(chosen, living.store, logs, embedders)  # type: ignore[arg-type]
    before = living.manifest.snapshot_id
    await living.upsert("n", "New.")
    assert not await maintenance.run_once("default")
    kept = Archive(living.store, "default", living.log.log_id)
    assert kept.end() == (await living.log.state()).head
    assert living.manifest.snapshot_id == before
    for number in range(5):
        await living.upsert(f"n{number}", f"New {number}.")
    assert await maintenance.run_once("default")
    assert living.manifest.parent_snapshot_id == before
    assert len(living.texts()) == 26
    living.store.remove_snapshot("default", before)
    assert not await maintenance.run_once("default")
    assert (await living.log.state()).trimmed == (await living.log.state()).head


@pytest.mark.parametrize("cause", ["more builds than are kept", "a large log"])
async def test_maintenance_removes_builds_that_nobody_needs_and_trims_the_log(
    living: Living, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, log_mib = ("0", 0) if cause == "more builds than are kept" else ("9", 2)

    async def size_bytes() -> int:
        return log_mib << 20

    monkeypatch.setattr(living.log, "size_bytes", size_bytes)
    for number in range(3):
        living.clock.now += 10
        await living.upsert(f"n{number}", f"New {number}.")
        corpus = living.corpus(TEXTS, living.clock.now, f"corpus{number}")
        await living.build(corpus, shards=2)
    common = {"store": living.options.store, "compact": "false", "log_bytes": str(1 << 20)}

    async def trimmed(**words: str) -> int:
        chosen = UpkeepSettings.load(common | words)
        logs = _Logs({"default": living.log})
        maintenance = Maintenance(chosen, living.store, logs, None)  # type: ignore[arg-type]
        await maintenance.run_once("default")
        return sum((await living.log.state()).trimmed.positions)

    assert await trimmed(keep=kept) == 0
    assert len(living.store.snapshot_ids("default")) == 4
    # The current one and the target of a rollback, which lacks the last change.
    assert await trimmed(keep=kept, keep_age="0s") == 2
    assert len(living.store.snapshot_ids("default")) == 2


async def test_maintenance_prunes_a_collection_without_a_change_log(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    for number in range(4):
        await living.build(living.corpus(TEXTS, 10 + number, f"corpus{number}"))
    words = {"store": living.options.store, "keep": "1", "keep_age": "0s"}
    chosen = UpkeepSettings.load(words)
    logs = _Logs({"default": living.log})  # Of interactions, at the same address.
    maintenance = Maintenance(chosen, living.store, logs, None)  # type: ignore[arg-type]
    await maintenance.run_once("default")
    # The current one, the target of a rollback, and one more.
    assert len(living.store.snapshot_ids("default")) == 3


async def test_nothing_is_compacted_during_the_trial_of_a_canary(living: Living) -> None:
    chosen = UpkeepSettings.load({"store": living.options.store, "share": 0.0})
    logs = _Logs({"default": living.log})
    embedders = Embedders({"it": living.embedder})
    maintenance = Maintenance(chosen, living.store, logs, embedders)  # type: ignore[arg-type]
    first = living.manifest.snapshot_id
    await living.upsert("n", "New.")
    await living.compact()
    aliases.split(living.store, "default", first, 0.1)
    await living.upsert("n", "Newer.")
    assert not await maintenance.run_once("default")
    with pytest.raises(Conflict, match=f"{first} is a canary of .* promote or abort it first"):
        await living.compact()
    assert living.store.alias_in_force("default").canary == first
    aliases.end_split(living.store, "default")
    assert await maintenance.run_once("default")


async def test_maintenance_skips_collections_that_fail(living: Living) -> None:
    chosen = UpkeepSettings.load({"store": living.options.store, "every_s": 0.01})
    logs = _Logs({"default": living.log})
    embedders = Embedders({"it": living.embedder})
    maintenance = Maintenance(chosen, living.store, logs, embedders)  # type: ignore[arg-type]
    living.log.away = True
    task = asyncio.create_task(maintenance.run())
    await asyncio.sleep(0)
    living.log.away = False
    await living.upsert("n", "New.")
    while not Archive(living.store, "default", living.log.log_id).end().positions.count(1):
        await asyncio.sleep(0.01)
        assert not task.done()
    task.cancel()


async def test_a_build_starts_over_if_the_log_was_trimmed_past_it(
    living: Living,
) -> None:
    first = living.manifest.snapshot_id
    await living.upsert("d1", "Changed.")
    await archive_changes(living.store, living.log)
    await living.log.trim((await living.log.state()).head)  # By a hand that does not look.

    class Forgetful(HashEmbedder):
        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            await living.upsert("d2", "Changed.")
            await living.log.trim((await living.log.state()).head)
            return await super().embed(*args, **kwargs)

    more = living.corpus({**TEXTS, "more": "More."}, 15, "more")
    with pytest.raises(Conflict, match="only has those after"):
        await living.build(more, embedder=Forgetful(), shards=2)
    assert aliases.rollback_target(list(living.store.alias_records("default"))) is None
    assert living.store.alias_in_force("default").current == first
    assert not list((living.folder / "store" / "default").glob(".build/*"))


@pytest.mark.service
async def test_compaction_in_an_object_store(s3: str, tmp_path: Path) -> None:  # noqa: F811
    living = Living(tmp_path, url=s3, shards=2)
    await living.build(living.corpus(TEXTS, 10))
    living.make_log()
    living.clock.now = 20
    await living.upsert("d1", "Changed.")
    await living.delete("d2")
    # Another machine, whose cache is empty.
    shutil.rmtree(tmp_path / "cache")
    await living.compact()
    wanted = {**TEXTS, "d1": "Changed."}
    del wanted["d2"]
    assert living.texts() == wanted
    shutil.rmtree(tmp_path / "cache")
    living.embedder.texts.clear()
    await living.build(living.folder / "corpus.jsonl", shards=2)
    assert living.texts() == wanted
    assert living.embedder.texts == []
