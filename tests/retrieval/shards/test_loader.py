"""Loading shards: the checks before a snapshot serves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from nearline.errors import (
    NearlineError,
    NotFound,
    SettingsError,
    SnapshotCorrupt,
    SnapshotGone,
    SnapshotMismatch,
)
from nearline.store.snapshot import Store, shard_folder
from retrieval.index.gpu.gpu_pool import GpuPool
from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.shards.loader import LoadedShard, load_shards
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.shard_host import ShardHost
from tests.retrieval.index.gpu.devices import cpu_device
from tests.retrieval.small_snapshots import Document, documents_of, write_snapshot

VECTORS = np.random.default_rng(7).normal(size=(400, 8)).astype(np.float32)
GOLDEN = np.random.default_rng(8).normal(size=(20, 8)).astype(np.float32)


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    started = ThreadPool(1)
    yield started
    started.close()


def load(root: Path, threads: ThreadPool, numbers: set[int] | None = None) -> list[LoadedShard]:
    (snapshot,) = read_current_snapshots(Store(root), ())
    return load_shards(Store(root), snapshot, numbers, threads=threads)


def folder_of(root: Path) -> Path:
    store = Store(root)
    return store.snapshot_folder("default", store.alias_in_force("default").current)


@pytest.mark.parametrize("name", ["shards/001/dense.faiss", "shards/000/items.arrow",
                                  "golden/queries.arrow"])  # fmt: skip
def test_one_flipped_byte_is_detected_and_the_error_names_both_hashes(
    tmp_path: Path, threads: ThreadPool, name: str
) -> None:
    write_snapshot(tmp_path, documents_of(VECTORS), shards=2, golden=GOLDEN)
    load(tmp_path, threads)
    path = folder_of(tmp_path) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotCorrupt, match=r"has SHA-256 \w{64}, the manifest says \w{64}"):
        load(tmp_path, threads)


def test_files_of_shards_that_are_not_loaded_are_not_checked(
    tmp_path: Path, threads: ThreadPool
) -> None:
    write_snapshot(tmp_path, documents_of(VECTORS), shards=2)
    (shard_folder(folder_of(tmp_path), 1) / "dense.faiss").unlink()
    assert [loaded.number for loaded in load(tmp_path, threads, {0})] == [0]
    with pytest.raises(SnapshotCorrupt, match="has no bytes"):
        load(tmp_path, threads)


def test_another_version_of_faiss_is_refused(tmp_path: Path, threads: ThreadPool) -> None:
    write_snapshot(tmp_path, documents_of(VECTORS), faiss_version="1.7.4")
    with pytest.raises(SnapshotMismatch, match=rf"faiss 1\.7\.4.*{faiss.__version__}"):
        load(tmp_path, threads)


@pytest.mark.parametrize("numbers", [None, {0}, {1, 2}])
def test_golden_queries_must_reach_the_recall_of_the_build(
    tmp_path: Path, threads: ThreadPool, numbers: set[int] | None
) -> None:
    how = {"shards": 3, "factory": "HNSW4,Flat", "golden": GOLDEN}
    write_snapshot(tmp_path, documents_of(VECTORS), **how)  # type: ignore[arg-type]
    load(tmp_path, threads, numbers)
    write_snapshot(tmp_path, documents_of(VECTORS), ef_search=1, **how)  # type: ignore[arg-type]
    # ef 1 is raised to k plus slack, so the index has to be worse than that to be refused.
    write_snapshot(
        tmp_path,
        documents_of(np.repeat(VECTORS, 8, axis=0) + np.arange(3200)[:, None] * 1e-4),
        **how | {"factory": "PQ1x2"},  # type: ignore[arg-type]
    )
    with pytest.raises(
        SnapshotMismatch, match=r"recall 0\.\d+ here, but the manifest promises 1\.000"
    ):
        load(tmp_path, threads, numbers)


def test_ties_among_golden_answers_do_not_lower_recall(tmp_path: Path, threads: ThreadPool) -> None:
    same = [Document(id=f"s{n:03d}", vectors=VECTORS[:1]) for n in range(200)]
    write_snapshot(tmp_path, same, factory="HNSW8,Flat", golden=GOLDEN, shards=2)
    assert len(list(load(tmp_path, threads))) == 2


def test_loaded_shards_accept_live_changes(tmp_path: Path, threads: ThreadPool) -> None:
    snapshot = write_snapshot(tmp_path, documents_of(VECTORS), shards=2)
    for loaded in load(tmp_path, threads):
        assert loaded.snapshot.manifest.snapshot_id == snapshot
        assert loaded.vocabulary is None
        entry = loaded.snapshot.manifest.shards[loaded.number]
        base = loaded.shard.base
        assert (base.items.chunks, base.index.describe().rows) == (entry.chunks, entry.chunks)


async def test_a_host_refuses_shards_and_snapshots_that_it_does_not_hold(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path, documents_of(VECTORS), shards=2)
    async with hosting(tmp_path, {1}) as host:
        await host.start()
        with host.shards("default", snapshot, 1) as shards:
            assert shards[1].number == 1
        with pytest.raises(SnapshotGone, match=f"has snapshot {snapshot} loaded"):
            host.shards("default", "20260101T000000Z-000000", 1)
        for collection, number in (("default", 0), ("other", 1)):
            with pytest.raises(NotFound, match=r"it holds 1 of 'default'"):
                host.shards(collection, snapshot, number)


@pytest.mark.parametrize(
    ("collections", "numbers", "kind", "text"),
    [
        (("lost",), None, NotFound, "collection 'lost' has no published snapshot"),
        ((), {7}, SettingsError, "no collection of .* has any of the shards"),
    ],
)
async def test_a_host_without_any_of_the_shards_does_not_start(
    tmp_path: Path,
    collections: tuple[str, ...],
    numbers: set[int] | None,
    kind: type[NearlineError],
    text: str,
) -> None:
    write_snapshot(tmp_path, documents_of(VECTORS), shards=2)
    async with hosting(tmp_path, numbers, collections) as host:
        with pytest.raises(kind, match=text):
            await host.start()


async def test_an_empty_store_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        with pytest.raises(NotFound, match="nearline build"):
            await host.start()


@contextlib.asynccontextmanager
async def hosting(
    root: Path, numbers: set[int] | None = None, collections: tuple[str, ...] = ()
) -> AsyncIterator[ShardHost]:
    shards = LocalShardProvider(Store(root), 1, numbers)
    host = ShardHost(Store(root), shards, collections)
    yield host
    await host.close()
    await shards.close()


def test_golden_queries_are_for_the_cpu_and_a_refused_snapshot_leaves_the_gpu(
    tmp_path: Path, threads: ThreadPool
) -> None:
    # One list of 32 is searched: a GPU, which compares all vectors, would find what is promised.
    how = {"factory": "IVF32,Flat", "golden": GOLDEN}
    with contextlib.closing(cpu_device()) as device:
        pool = GpuPool([device])
        free = device.free_bytes()
        for promised in (0.1, 0.9, 0.9):
            write_snapshot(tmp_path, documents_of(VECTORS), promised_recall=promised, **how)  # type: ignore[arg-type]
            (snapshot,) = read_current_snapshots(Store(tmp_path), ())
            if promised == 0.1:
                (loaded,) = load_shards(Store(tmp_path), snapshot, None, threads=threads, gpus=pool)
                assert device.held_bytes() == VECTORS.size * 2
                loaded.shard.close()
            else:
                with pytest.raises(SnapshotMismatch, match=r"promises 0\.900"):
                    load_shards(Store(tmp_path), snapshot, None, threads=threads, gpus=pool)
            assert device.free_bytes() == free and not pool._placed
