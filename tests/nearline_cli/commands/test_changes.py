"""Tests of `nearline changes`, `nearline compact` and builds with a change log, with a real
Redis.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from nearline.store.snapshot import Store
from nearline_cli.local.processes import service_process
from nearline_cli.main import main
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.changelog.registry import ChangeLogs
from tests.redis_server import needs_redis, valkey
from tests.waits import until

pytestmark = [pytest.mark.service, needs_redis]


class _Collection:
    """A collection of vectors that a user brought, in a store, with its log in a Redis."""

    def __init__(self, folder: Path, redis: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.redis = redis
        self.store = str(folder / "store")
        self._capsys = capsys

    async def run(self, *words: str, code: int = 0) -> dict[str, object]:
        """Runs a command with --json; gives what it printed."""
        arguments = [*words, "--store", self.store, "--redis", self.redis, "--json"]
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        shown = self._capsys.readouterr()
        assert ended.value.code == code, shown.err
        record: dict[str, object] = json.loads(shown.err if code else shown.out)
        return record

    async def change(self, *changes: Change) -> None:
        """Appends changes."""
        logs = ChangeLogs(Store.open(self.store), self.redis, who="test")
        try:
            await logs.log("default").append([ChangeWrite(one, base_version=0) for one in changes])
        finally:
            await logs.close()

    def corpus(self, name: str, *keys: str) -> str:
        """Writes documents with vectors."""
        path = self.folder / f"{name}.jsonl"
        lines = [json.dumps({"id": key, "text": key, "v": [1, 2, 3]}) for key in keys]
        path.write_text("\n".join(lines))
        return str(path)

    def ids(self) -> set[str]:
        """Ids in the current snapshot."""
        import pyarrow as pa

        store = Store.open(self.store)
        folder = store.snapshot_folder("default", store.alias_in_force("default").current)
        with pa.memory_map(str(folder / "shards" / "000" / "items.arrow")) as source:
            return set(pa.ipc.open_file(source).read_all().column("id").to_pylist())


def _upsert(key: str) -> Change:
    vector = np.array([[0, 0, 1]], np.float32)
    bounds = np.array([(0, len(key))], np.int64)
    return Change(
        document_id=key, kind=ChangeKind.UPSERT, text=key, bounds=bounds, vectors={"": vector}
    )


def _delete(key: str) -> Change:
    return Change(document_id=key, kind=ChangeKind.DELETE)


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[str]:
    async with valkey(tmp_path / "redis") as url:
        yield url


@pytest_asyncio.fixture
async def collection(tmp_path: Path, redis: str, capsys: pytest.CaptureFixture[str]) -> _Collection:
    made = _Collection(tmp_path, redis, capsys)
    corpus = made.corpus("corpus", "a", "b", "c")
    await made.run("build", "--corpus", corpus, "--vector-column", "v")
    await made.change(_upsert("live"), _delete("b"))
    return made


async def test_a_rebuild_includes_live_changes_and_a_merge_keeps_documents(
    collection: _Collection,
) -> None:
    corpus = str(collection.folder / "corpus.jsonl")
    built = await collection.run("build", "--corpus", corpus, "--vector-column", "v")
    assert collection.ids() == {"a", "c", "live"}
    merged = built["merged"]
    assert isinstance(merged, dict) and merged["changes"] == 2
    more = collection.corpus("more", "d", "b")
    arguments = ("--vector-column", "v", "--mode", "merge", "--as-of", "2020-01-01T00:00:00Z")
    await collection.run("build", "--corpus", more, *arguments)
    assert collection.ids() == {"a", "c", "d", "live"}  # b was deleted after 2020.
    error = await collection.run(
        *("build", "--corpus", more, "--vector-column", "v", "--as-of", "2999-01-01"), code=2
    )
    assert "in the future" in str(error["message"])


async def test_the_log_is_archived_compacted_and_trimmed(collection: _Collection) -> None:
    status = await collection.run("changes", "status")
    assert (status["changes"], status["in_log"], status["archived"]) == (2, 2, 0)
    archived = await collection.run("changes", "archive")
    assert (archived["archived"], archived["segments"]) == (2, 1)
    trimmed = await collection.run("changes", "trim")
    assert trimmed["trimmed"] == 0  # The first snapshot has none of them.
    not_due = await collection.run("compact", "--if-due", "--share", "2")
    assert (not_due["due"], not_due["changes"]) == (False, 2)
    await collection.run("compact")
    assert collection.ids() == {"a", "c", "live"}
    store = Store.open(collection.store)
    current = store.alias_in_force("default").current
    for snapshot_id in store.snapshot_ids("default"):
        if snapshot_id != current:
            store.remove_snapshot("default", snapshot_id)
    trimmed = await collection.run("changes", "trim", "--drop-archived", "--yes")
    assert (trimmed["trimmed"], trimmed["segments_dropped"]) == (2, 1)
    status = await collection.run("changes", "status")
    assert (status["changes"], status["in_log"], status["in_every_snapshot"]) == (2, 0, 2)
    corpus = str(collection.folder / "corpus.jsonl")
    await collection.run("build", "--corpus", corpus, "--vector-column", "v")
    assert collection.ids() == {"a", "c", "live"}


async def test_after_a_wiped_redis_a_new_log_reports_the_loss(
    collection: _Collection, tmp_path: Path
) -> None:
    await collection.run("changes", "archive")
    await collection.change(_upsert("lost"))
    async with valkey(tmp_path / "empty") as empty:
        collection.redis = empty
        corpus = str(collection.folder / "corpus.jsonl")
        build = ("build", "--corpus", corpus, "--vector-column", "v")
        error = await collection.run(*build, code=1)
        assert error["error"] == "SNAPSHOT_MISMATCH"
        refused = await collection.run("changes", "reset", code=2)
        assert "2 changes of log " in str(refused["message"])
        told = await collection.run("changes", "reset", "--yes")
        assert "2 changes of log " in str(told["lost"])
        await collection.change(_upsert("new"))
        await collection.run(*build)
        assert collection.ids() == {"a", "c", "live", "new"}
        record = Store.open(collection.store).log_in_force("default")
        assert record is not None and record.follows == told["follows"]


async def test_upkeep_runs_as_a_service(collection: _Collection) -> None:
    words = ("--store", collection.store, "--redis", collection.redis, "--every-s", "0.1")
    module = "index_builder.maintenance"
    async with service_process(module, (*words, "--share", "0", "--golden-queries", "0")):
        await until(lambda: collection.ids() == {"a", "c", "live"}, timeout_s=30)


async def test_the_batch_job_requires_the_log(collection: _Collection) -> None:
    corpus = str(collection.folder / "corpus.jsonl")

    async def job(*more: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "index_builder", "--corpus", corpus, "--vector-column", "v"),
            *("--store", collection.store, *more),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        shown, _ = await process.communicate()
        return process.returncode, shown.decode()

    code, shown = await job()
    assert code == 1 and "say where it is with --redis" in shown
    code, shown = await job("--redis", collection.redis)
    assert code == 0, shown
    assert collection.ids() == {"a", "c", "live"}


async def test_the_summary_says_what_was_merged(
    collection: _Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compact", "--store", collection.store, "--redis", collection.redis]
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, words)
    assert ended.value.code == 0
    assert "merged      2 live changes, 1 deleted" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, words)
    assert "not due: 0 changes" in capsys.readouterr().out


async def test_a_collection_without_a_log_needs_no_redis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _Collection(tmp_path, "redis://127.0.0.1:1/0", capsys)
    corpus = made.corpus("corpus", "a")
    await made.run("build", "--corpus", corpus, "--vector-column", "v")
    error = await made.run("changes", "status", code=1)
    assert "has no change log" in str(error["message"])
