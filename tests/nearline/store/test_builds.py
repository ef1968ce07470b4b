"""Builds that publish to an object store: whole or not at all, with distinct epochs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus, build_snapshot
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Item
from nearline.store.snapshot import Store
from nearline.store.work import stored_work
from retrieval.snapshots.retention import plan_prune, prune
from tests.index_builder.embedders import HashEmbedder
from tests.nearline.store.stalled_upload import UPLOADED

ROOT = Path(__file__).parents[3]
DOCUMENTS = [Item(id=f"d{n}", text=f"Text {n}.") for n in range(40)]


async def _build(url: str) -> str:
    options = BuildOptions(store=url, golden_queries=0, shards=2)
    return (await build_snapshot(DOCUMENTS, options, HashEmbedder())).snapshot_id


def _elsewhere(s3: str, folder: Path) -> Store:
    """Opens the store like another machine, with an empty cache."""
    return Store.open(s3, str(folder))


async def test_a_build_is_read_shard_by_shard_from_another_machine(s3: str, tmp_path: Path) -> None:
    snapshot_id = await _build(s3)
    store = _elsewhere(s3, tmp_path / "other")
    assert store.collections() == ["default"]
    assert store.alias_in_force("default").current == snapshot_id
    assert store.snapshot_ids("default") == [snapshot_id]
    manifest = store.manifest("default", snapshot_id)
    assert store.verify("default", snapshot_id) == sum(file.bytes for file in manifest.files)
    folder = store.snapshot_folder("default", snapshot_id)
    assert not folder.exists()  # Verification caches nothing.
    fetched = store.fetch("default", snapshot_id, ["shards/001/"])
    mine = {file.path: file.bytes for file in manifest.files if "shards/001/" in file.path}
    assert fetched == sum(mine.values())
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == mine.keys() != set()


async def test_concurrent_builders_get_distinct_epochs(s3: str) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(asyncio.run(_build(s3)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    store = Store.open(s3)
    records = list(store.alias_records("default"))
    assert [record.epoch for record in records] == [3, 2, 1]
    assert sorted(record.current for record in records) == sorted(made)
    assert store.snapshot_ids("default") == sorted(made, reverse=True)


async def test_remains_of_an_upload_are_pruned_after_a_day(s3: str) -> None:
    new = await _build(s3)
    store = Store.open(s3)
    store.files.create("default/snapshots/20260101T000000Z-0a1b2c/shards/000/dense.faiss", b"x")
    planned = plan_prune(store, "default", 1)
    assert [(one.name, one.kept) for one in planned] == [
        (new, "current"),
        ("20260101T000000Z-0a1b2c", ""),
    ]
    prune(store, "default", planned)
    assert store.files.names("default/snapshots") == [new]


async def test_a_snapshot_is_removed_and_others_stay(s3: str) -> None:
    old, new = await _build(s3), await _build(s3)
    store = Store.open(s3)
    store.remove_snapshot("default", old)
    assert store.snapshot_ids("default") == [new]
    assert store.files.names("default/snapshots") == [new]
    assert store.verify("default", new) > 0


@pytest.mark.service
async def test_a_killed_upload_is_not_listed_and_the_next_run_removes_it(
    s3: str, tmp_path: Path
) -> None:
    old = await _build(s3)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"id": f"n{n}", "text": f"New {n}."}) for n in range(9)))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.nearline.store.stalled_upload", s3, str(corpus)],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stalled\n"
        process.send_signal(signal.SIGKILL)
    store = _elsewhere(s3, tmp_path / "other")
    (orphan,) = set(store.files.names("default/snapshots")) - {old}
    assert len(store.files.names(f"default/snapshots/{orphan}/golden")) == UPLOADED
    assert store.snapshot_ids("default") == [old]
    assert store.unfinished_ids("default") == [orphan]
    assert store.alias_in_force("default").current == old
    assert store.verify("default", old) > 0
    kept = {one.name: one.kept for one in plan_prune(store, "default", 0)}
    (work,) = store.files.names("default/unfinished")
    assert kept == {
        old: "current",
        orphan: "its upload may still run",
        f"unfinished/{work}": "a build may go on with it",
    }
    again = HashEmbedder()
    options = BuildOptions(store=s3, golden_queries=0)
    result = await build_corpus(Corpus([corpus], DocumentColumns()), options, again)
    assert (again.texts, result.resumed) == ([], 9)
    # Two ids of the same second have no order.
    assert set(store.files.names("default/snapshots")) == {old, result.snapshot_id}
    assert store.alias_in_force("default").current == result.snapshot_id


@pytest.mark.parametrize("damaged", ["{", "[" * 100_000, '{"created_us": 1e999}'])
def test_a_damaged_note_of_an_unfinished_build_counts_as_an_old_one(
    tmp_path: Path, damaged: str
) -> None:
    store = Store(tmp_path)
    note = tmp_path / "default" / "unfinished" / ("0" * 16) / "begun.json"
    note.parent.mkdir(parents=True)
    note.write_text(damaged)
    (work,) = stored_work(store.files, "default")
    assert work.time.timestamp() == 0
