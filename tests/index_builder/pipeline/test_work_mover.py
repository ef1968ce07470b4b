"""A build over an object store that goes on on another machine: one with another, empty cache."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from index_builder.lineage.lineage import Lineage
from index_builder.options.build_options import BuildOptions, IndexOptions, Mode
from index_builder.pipeline import work_mover
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.errors import NotFound, StoreError
from nearline.store.snapshot import Store
from nearline.store.work import BuildWork, stored_work
from retrieval.protocols.watermark import Watermark
from retrieval.snapshots.retention import plan_prune, prune
from tests.index_builder.embedders import DIM, HashEmbedder
from tests.nearline.store.conftest import s3, s3_endpoint  # noqa: F401  fixtures

ROOT = Path(__file__).parents[3]
DOCUMENTS = 1_000
TEXTS = [f"Text {number}." for number in range(DOCUMENTS)]


def options(url: str, collection: str = "default") -> BuildOptions:
    return BuildOptions(
        store=url,
        collection=collection,
        shards=2,
        golden_queries=20,
        index=IndexOptions(factory="Flat"),
    )


@pytest.fixture(autouse=True)
def pieces_of_100_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_mover, "PIECE_BYTES", 100 * 4 * DIM)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = (json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


class Machine:
    """Makes the following builds run on a machine of some name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._folder = folder

    def use(self, name: str) -> Path:
        """Uses the disk of a machine from now on; returns its folder."""
        folder = self._folder / name
        self._monkeypatch.setenv("NEARLINE_CACHE_DIR", str(folder))
        return folder


async def build(url: str, corpus: Path, embedder: HashEmbedder) -> BuildResult:
    return await build_corpus(Corpus([corpus], DocumentColumns()), options(url), embedder)


def killed_build(url: str, corpus: Path, log: Path, stall: int) -> list[str]:
    """Kills a build once it has stalled and has uploaded that; returns the texts embedded."""
    words = [url, str(corpus), str(log), str(stall)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.index_builder.pipeline.moved_build", *words],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stalled\n"
        while uploaded_rows(piece_names(url)) < stall:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                pytest.fail("the build has ended")
        process.send_signal(signal.SIGKILL)
    return log.read_text("utf-8").splitlines()


def piece_names(url: str) -> list[str]:
    files = Store.open(url).files
    return [
        f"{one.path}/pieces/{name}"
        for one in stored_work(files, "default")
        for name in files.names(f"{one.path}/pieces")
    ]


def uploaded_rows(names: list[str]) -> int:
    return sum(int(name.split("-")[-3]) - int(name.split("-")[-4]) + 1 for name in names)


def contents(url: str, result: BuildResult) -> dict[str, str]:
    """Returns the SHA-256 of each file of a snapshot but the report, which has times."""
    manifest = Store.open(url).manifest("default", result.snapshot_id)
    return {one.path: one.sha256 for one in manifest.files if "report" not in one.path}


@pytest.mark.long
@pytest.mark.service
async def test_a_killed_build_goes_on_on_another_machine_and_makes_the_same_snapshot(
    s3: str,  # noqa: F811
    tmp_path: Path,
    corpus: Path,
    machine: Machine,
) -> None:
    machine.use("first")
    before = await asyncio.to_thread(killed_build, s3, corpus, tmp_path / "log", 400)
    assert 400 <= len(before) < DOCUMENTS
    rows = uploaded_rows(piece_names(s3))
    assert 400 <= rows <= len(before)
    machine.use("second")
    again = HashEmbedder()
    result = await build(s3, corpus, again)
    # What was embedded and uploaded is not embedded again.
    assert (result.embedded, result.resumed) == (DOCUMENTS - rows, rows)
    assert Counter(again.texts) + Counter(before[:rows]) == Counter(TEXTS)
    assert list(stored_work(Store.open(s3).files, "default")) == []
    machine.use("third")
    whole = await build(f"{s3}-whole", corpus, HashEmbedder())
    assert (whole.embedded, whole.resumed) == (DOCUMENTS, 0)
    assert contents(s3, result) == contents(f"{s3}-whole", whole)
    assert len(contents(s3, result)) > 6


@pytest.mark.long
async def test_damaged_pieces_are_done_again(
    s3: str,  # noqa: F811
    corpus: Path,
    machine: Machine,
) -> None:
    machine.use("first")
    await interrupted(s3, corpus, 600)
    names = piece_names(s3)
    assert len(names) >= 6
    files = Store.open(s3).files
    damages = (lambda b: b[:-9], lambda b: b"x" * len(b), None)
    for name, damage in zip(names[:3], damages, strict=True):
        data = files.read(name)
        files.remove_file(name)
        # One was uploaded by half, one has other bytes, one is gone.
        if damage is not None:
            files.create(name, damage(data))
    damaged = uploaded_rows(names[:3])
    machine.use("second")
    again = HashEmbedder()
    result = await build(s3, corpus, again)
    assert len(again.texts) == result.embedded >= DOCUMENTS - 600 - 64 * 4 + damaged
    assert result.embedded + result.resumed == DOCUMENTS
    whole = await build(f"{s3}-whole", corpus, HashEmbedder())
    assert contents(s3, result) == contents(f"{s3}-whole", whole)


async def interrupted(url: str, corpus: Path, texts: int) -> HashEmbedder:
    """Makes a build that fails once so many texts are embedded; what they take is uploaded."""

    class Failing(HashEmbedder):
        async def embed(self, *words: object, **options: object):  # type: ignore[no-untyped-def]
            if len(self.texts) >= texts:
                raise StoreError("the machine is taken away")
            return await super().embed(*words, **options)  # type: ignore[arg-type]

    embedder = Failing()
    with pytest.raises(StoreError, match="taken away"):
        await build(url, corpus, embedder)
    return embedder


async def test_a_piece_of_other_texts_is_left_out(
    s3: str,  # noqa: F811
    corpus: Path,
    machine: Machine,
) -> None:
    machine.use("first")
    await interrupted(s3, corpus, 600)
    files = Store.open(s3).files
    (work,) = stored_work(files, "default")
    mine = BuildWork(files, "default", work.path.rpartition("/")[2])
    first, *others = mine.pieces()
    data = bytearray(files.read(f"{work.path}/pieces/{first.name}"))
    data[12] ^= 1  # Of the hash of the texts.
    mine.discard(first)
    mine.add(bytes(data), first.first, first.last)
    machine.use("second")
    again = HashEmbedder()
    result = await build(s3, corpus, again)
    assert result.resumed == sum(one.last - one.first + 1 for one in others)
    assert len(again.texts) == result.embedded


@pytest.mark.long
async def test_two_machines_that_build_the_same_at_once_both_publish_it(
    s3: str,  # noqa: F811
    tmp_path: Path,
    corpus: Path,
    machine: Machine,
) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        machine.use(name)
        words = [s3, str(corpus), str(tmp_path / f"{name}.log"), "0"]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.index_builder.pipeline.moved_build", *words],
            cwd=ROOT,
            env=dict(os.environ),
        )

    running = [start("first"), start("second")]
    assert [await asyncio.to_thread(one.wait) for one in running] == [0, 0]
    machine.use("third")
    store = Store.open(s3)
    records = list(store.alias_records("default"))
    assert sorted(one.epoch for one in records) == [1, 2]
    manifests = [store.manifest("default", one.current) for one in records]
    files = [
        {one.path: one.sha256 for one in each.files if "report" not in one.path}
        for each in manifests
    ]
    assert files[0] == files[1]
    assert all(store.verify("default", one.snapshot_id) for one in manifests)
    # The last to end removes what is left.
    assert list(stored_work(store.files, "default")) == []


async def test_work_that_was_not_uploaded_is_uploaded_when_its_machine_goes_on(
    s3: str,  # noqa: F811
    corpus: Path,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise StoreError("the network is away")

    machine.use("first")
    with monkeypatch.context() as patch:
        patch.setattr(BuildWork, "add", fails)
        await interrupted(s3, corpus, 300)
    assert piece_names(s3) == []
    await interrupted(s3, corpus, 1)
    assert len(piece_names(s3)) >= 3
    machine.use("second")
    again = HashEmbedder()
    result = await build(s3, corpus, again)
    assert result.resumed >= 300
    assert Counter(again.texts).most_common(1)[0][1] == 1


async def test_work_is_pruned_a_week_after_its_last_piece(
    s3: str,  # noqa: F811
    corpus: Path,
    machine: Machine,
) -> None:
    machine.use("first")
    await interrupted(s3, corpus, 300)
    store, now = Store.open(s3), datetime.now(UTC)
    # Nothing was published yet.
    (young,) = plan_prune(store, "default", 2, now=now + timedelta(days=6))
    assert young.kept == "a build may go on with it"
    assert young.name.startswith("unfinished/") and young.bytes > 300 * 4 * DIM
    prune(store, "default", [young])
    assert len(piece_names(s3)) >= 3
    (old,) = plan_prune(store, "default", 2, now=now + timedelta(days=8))
    assert old.kept == ""
    prune(store, "default", [old])
    assert store.files.names("default") == []
    with pytest.raises(NotFound):
        plan_prune(store, "default", 2)


async def test_another_machine_continues_from_the_changes_that_the_first_began_with(
    s3: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = Store.open(s3)
    first, second = (
        Lineage(
            store=store,
            collection="default",
            mode=Mode.MERGE,
            parent=None,
            watermark=Watermark("a" * 32, (number,) * 64),
            import_times_us=[number],
            begun_us=10 * number,
        )
        for number in (1, 2)
    )
    found = []
    for name, lineage in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        work = BuildWork(store.files, "default", "0" * 16)
        found.append(lineage.resumed(tmp_path / name, work))
    assert found[0] == found[1] == first
    (one,) = stored_work(store.files, "default")
    assert datetime.now(UTC) - one.time < timedelta(minutes=5)
