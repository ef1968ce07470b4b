"""A build that is killed or runs out of space loses no earlier snapshot."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_corpus, build_snapshot
from index_builder.pipeline.work_folder import work_folder, work_key
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Item
from nearline.errors import Conflict, InvalidRequest
from nearline.store.snapshot import Store
from tests.index_builder.embedders import HashEmbedder

ROOT = Path(__file__).parents[3]
DOCUMENTS = 1000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = (json.dumps({"id": f"d{n}", "text": f"Text {n}."}) for n in range(DOCUMENTS))
    path.write_text("\n".join(lines))
    return path


def _start(store: Path, corpus: Path, log: Path, stall: str) -> subprocess.Popen[str]:
    arguments = [str(store), str(corpus), str(log), stall]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.index_builder.pipeline.killed_build", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.service
async def test_a_killed_build_leaves_the_old_snapshot_and_is_resumed(
    tmp_path: Path, corpus: Path
) -> None:
    root, log = tmp_path / "store", tmp_path / "embedded.txt"
    options = BuildOptions(store=str(root), golden_queries=0)
    old = await build_snapshot([Item(id="old", text="Old.")], options, HashEmbedder())
    with _start(root, corpus, log, "300") as process:
        assert process.stdout is not None
        # The stage has several batches in flight: once all of them stall, nothing more comes.
        assert [process.stdout.readline() for _ in range(4)] == ["stalled\n"] * 4
        with pytest.raises(Conflict, match="another build"):
            await build_corpus(Corpus([corpus], DocumentColumns()), options, HashEmbedder())
        process.send_signal(signal.SIGKILL)
    store = Store.open(str(root))
    assert store.alias_in_force("default").current == old.snapshot_id
    assert store.verify("default", old.snapshot_id) == old.bytes
    before = log.read_text().splitlines()
    assert 300 <= len(before) < DOCUMENTS
    again = HashEmbedder()
    result = await build_corpus(Corpus([corpus], DocumentColumns()), options, again)
    assert (result.embedded, result.resumed) == (DOCUMENTS - len(before), len(before))
    assert Counter(before + again.texts) == Counter(f"Text {n}." for n in range(DOCUMENTS))
    assert store.alias_in_force("default").current == result.snapshot_id
    assert not (root / "default" / ".build").exists()


@pytest.mark.service
async def test_a_build_killed_while_writing_is_resumed_without_embedding_and_cleaned_up(
    tmp_path: Path, corpus: Path
) -> None:
    root = tmp_path / "store"
    options = BuildOptions(store=str(root), golden_queries=0)
    old = await build_snapshot([Item(id="old", text="Old.")], options, HashEmbedder())
    with _start(root, corpus, tmp_path / "log", "writing") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stalled\n"
        process.send_signal(signal.SIGKILL)
    store = Store.open(str(root))
    assert store.snapshot_ids("default") == [old.snapshot_id]
    assert len(list(root.rglob(".tmp-*"))) == 1
    again = HashEmbedder()
    result = await build_corpus(Corpus([corpus], DocumentColumns()), options, again)
    assert (again.texts, result.resumed) == ([], DOCUMENTS)
    assert not list(root.rglob(".tmp-*"))
    assert store.verify("default", result.snapshot_id) == result.bytes


async def test_a_build_that_failed_on_its_index_is_resumed_with_another(
    tmp_path: Path, corpus: Path
) -> None:
    options = BuildOptions(
        store=str(tmp_path / "store"), index=IndexOptions(factory="IVF4,PQ4x8"), golden_queries=0
    )
    small = tmp_path / "small.jsonl"
    small.write_text("\n".join(corpus.read_text().splitlines()[:100]))
    with pytest.raises(InvalidRequest, match=r"cannot be trained on the 100 vectors of shard 0"):
        await build_corpus(Corpus([small], DocumentColumns()), options, HashEmbedder())
    again = HashEmbedder()
    plain = BuildOptions(store=options.store, golden_queries=0)
    result = await build_corpus(Corpus([small], DocumentColumns()), plain, again)
    assert (again.texts, result.resumed) == ([], 100)
    assert not list((tmp_path / "store").rglob(".tmp-*"))


async def test_another_model_or_corpus_starts_a_new_build(tmp_path: Path, corpus: Path) -> None:
    store = str(tmp_path / "store")
    failing = BuildOptions(store=store, index=IndexOptions(factory="IVF4,PQ4x10"))
    with pytest.raises(InvalidRequest, match="cannot be trained"):
        await build_corpus(Corpus([corpus], DocumentColumns()), failing, HashEmbedder())
    other = HashEmbedder(fingerprint="other")
    options = BuildOptions(store=store, golden_queries=0)
    result = await build_corpus(Corpus([corpus], DocumentColumns()), options, other)
    assert (result.embedded, result.resumed) == (DOCUMENTS, 0)


async def test_a_cancelled_build_keeps_its_work(tmp_path: Path, corpus: Path) -> None:
    options = BuildOptions(store=str(tmp_path / "store"), golden_queries=0)
    first = HashEmbedder()
    task = asyncio.create_task(build_corpus(Corpus([corpus], DocumentColumns()), options, first))
    while len(first.texts) < 400:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = HashEmbedder()
    result = await build_corpus(Corpus([corpus], DocumentColumns()), options, second)
    assert result.resumed > 0
    assert result.resumed + len(second.texts) == DOCUMENTS


async def test_interrupted_reading_starts_over(tmp_path: Path, corpus: Path) -> None:
    options = BuildOptions(store=str(tmp_path / "store"), golden_queries=0)
    found = Corpus([corpus], DocumentColumns())
    key = work_key(options, found.sources(), found.reading, "hash")
    folder = work_folder(options, key)
    folder.mkdir(parents=True)
    (folder / "documents.sqlite").write_bytes(b"SQLite format 3\0" + b"torn" * 100)
    result = await build_corpus(found, options, HashEmbedder())
    assert result.documents == DOCUMENTS


_NO_SPACE = """
import asyncio, resource, sys
from index_builder.pipeline.builder import build_snapshot
from index_builder.options.build_options import BuildOptions
from nearline.contract import Item
from nearline.errors import StoreError
from tests.index_builder.embedders import HashEmbedder
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
documents = [Item(id=str(n), text=f"Text {n}.") for n in range(int(sys.argv[3]))]
try:
    asyncio.run(build_snapshot(documents, BuildOptions(store=sys.argv[1]), HashEmbedder()))
except StoreError as error:
    print(error.message)
"""


@pytest.mark.service
@pytest.mark.parametrize(
    ("limit", "documents"),
    [
        pytest.param(4_096, 500, id="the spool"),
        pytest.param(100_000, 4_000, id="vectors and index"),
    ],
)
def test_a_full_store_is_named_and_keeps_its_snapshots(
    tmp_path: Path, limit: int, documents: int
) -> None:
    store = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", _NO_SPACE, str(store), str(limit), str(documents)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(store) in done.stdout, done.stderr
    assert "too large" in done.stdout or "full" in done.stdout or "I/O" in done.stdout
    assert Store.open(str(store)).collections() == []
    assert not [path for path in store.rglob("*") if path.is_file()]
