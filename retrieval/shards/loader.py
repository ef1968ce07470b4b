"""Loads shards of a snapshot: checks, maps, warms and tests them before they serve."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearline.contract import HitLevel
from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, shard_folder, shard_of
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.behaviour.shard_tables import read_shard_tables
from retrieval.index.attributes import snapshot_attributes
from retrieval.index.filtering.attribute_table import ATTRIBUTES_FILE, AttributeTable
from retrieval.index.gpu.gpu_pool import GpuPool
from retrieval.index.item_table import ITEMS_FILE, ItemTable
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.segment import Segment
from retrieval.index.suggestions import POOL
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.vectors import faiss_index
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import INDEX_FILE
from retrieval.protocols import metrics
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.snapshot import COSINE, SnapshotRef
from retrieval.shards.local_shard import Closable, LocalShard
from retrieval.snapshots.golden_queries import GoldenQueries, check_recall

_GOLDEN_K = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedShard:
    """One shard of one snapshot in this process; vocabulary is None without a lexical index."""

    snapshot: SnapshotRef
    number: int
    shard: LocalShard
    vocabulary: Vocabulary | None


def load_shards(
    store: Store,
    snapshot: SnapshotRef,
    numbers: Collection[int] | None,
    *,
    threads: ThreadPool,
    scanners: ThreadPool | None = None,
    gpus: GpuPool | None = None,
) -> list[LoadedShard]:
    """Loads shards of a snapshot; blocks while the files are read.

    Args:
        store: The store.
        snapshot: Snapshot to load.
        numbers: Shards to load; numbers that the snapshot does not have are ignored. None loads
            all.
        threads, scanners: Threads to search in; see `LocalShard`.
        gpus: GPUs that also hold the vectors. Optional.
    Raises: SnapshotCorrupt: a file contradicts the manifest. SnapshotMismatch: faiss version, dim
        or recall differ from the manifest.
    """
    start = time.perf_counter()
    faiss_index.use_one_thread()
    manifest = snapshot.manifest
    entries = {entry.shard: entry for entry in manifest.shards}
    wanted = sorted(entries.keys() if numbers is None else entries.keys() & numbers)
    if not wanted:
        return []
    faiss_index.check_version(manifest.faiss_version)
    folder = store.snapshot_folder(snapshot.collection, snapshot.snapshot_id)
    prefixes = [f"shards/{number:03d}/" for number in wanted]
    prefixes += ["golden/", "lexical/"]
    verified = store.fetch(snapshot.collection, snapshot.snapshot_id, prefixes)
    vocabulary = Vocabulary.load(folder) if manifest.HasField("lexical") else None
    loaded: list[LoadedShard] = []
    try:
        for number in wanted:
            entry = entries[number]
            loaded.append(
                _load_shard(
                    *(store, folder, snapshot, entry, vocabulary),
                    threads=threads,
                    scanners=scanners,
                    gpus=gpus,
                )
            )
        recall = _check_golden(folder, manifest, loaded)
    except BaseException:
        # They have places on GPUs, and threads.
        for one in loaded:
            one.shard.close()
        raise
    peers = {one.number: one.shard for one in loaded}
    for shard in peers.values():
        shard.peers = peers
    _log.info(
        "snapshot loaded",
        extra={
            "collection": snapshot.collection,
            "snapshot_id": snapshot.snapshot_id,
            "epoch": snapshot.epoch,
            "shards": wanted,
            "bytes": verified,
            "golden_recall": recall,
            "elapsed_s": round(time.perf_counter() - start, 3),
        },
    )
    return loaded


def _load_shard(
    store: Store,
    folder: Path,
    snapshot: SnapshotRef,
    entry: snapshot_pb2.ShardEntry,
    vocabulary: Vocabulary | None,
    *,
    threads: ThreadPool,
    scanners: ThreadPool | None,
    gpus: GpuPool | None,
) -> LoadedShard:
    manifest = snapshot.manifest
    path = shard_folder(folder, entry.shard)
    items = ItemTable(path / ITEMS_FILE)
    if (items.documents, items.chunks) != (entry.documents, entry.chunks):
        raise SnapshotCorrupt(
            f"{path / 'items.arrow'} has {items.documents} documents and {items.chunks} chunks, "
            f"but the manifest says {entry.documents} and {entry.chunks}; rebuild the snapshot"
        )
    index = FaissIndex.load(
        path / INDEX_FILE,
        manifest.index_factory,
        dim=manifest.dim,
        rows=entry.chunks,
        ef_search=manifest.default_ef_search,
        nprobe=manifest.default_nprobe,
    )
    index.warm()
    labels = (snapshot.collection, str(entry.shard))
    metrics.shard_vectors.labels(*labels).set(entry.chunks)
    table = AttributeTable.load(path / ATTRIBUTES_FILE, manifest.attributes, entry.documents)
    lexical = None if vocabulary is None else LexicalIndex.load(path, vocabulary, entry.chunks)
    if lexical is not None:
        lexical.warm(POOL)
    behaviour = None
    if manifest.HasField("behaviour"):
        tables = read_shard_tables(store, manifest, entry.shard, len(manifest.shards))
        behaviour = BehaviourShard(manifest.behaviour, tables)
        if behaviour.items != items.documents:
            raise SnapshotCorrupt(
                f"the behaviour tables of {snapshot.snapshot_id} have {behaviour.items} items of "
                f"shard {entry.shard}, which has {items.documents}; rebuild the snapshot"
            )
    name = f"shard {entry.shard} of {snapshot.collection}, snapshot {snapshot.snapshot_id}"
    gpu = None if gpus is None else gpus.attach(index, path / INDEX_FILE, name)
    # The vectors on GPUs are read from the index, so they are closed first.
    files: list[Closable] = [index, items] if gpu is None else [gpu, index, items]
    shard = LocalShard(
        snapshot.snapshot_id,
        entry.shard,
        Segment(
            index,
            items,
            snapshot_attributes(table, items, index, lexical),
            lexical,
            unit_length=manifest.metric == COSINE,
            gpu=gpu,
        ),
        threads=threads,
        scanners=scanners,
        behaviour=behaviour,
        files=files if lexical is None else [*files, lexical],
        observe=metrics.batch_vectors.labels(*labels).observe,
    )
    return LoadedShard(snapshot=snapshot, number=entry.shard, shard=shard, vocabulary=vocabulary)


def _check_golden(
    folder: Path, manifest: snapshot_pb2.Manifest, loaded: Sequence[LoadedShard]
) -> float | None:
    """Runs the golden queries on the loaded shards; returns their recall, None without any."""
    golden = GoldenQueries.read(folder, manifest) if loaded else None
    if golden is None:
        return None
    shards = len(manifest.shards)
    numbers = {shard.number for shard in loaded}
    # With its widths named, the index on the CPU answers: it must be good enough alone.
    info = loaded[0].shard.base.index.describe()
    options = ShardOptions(
        k=_GOLDEN_K,
        level=HitLevel.CHUNK,
        ef_search=info.ef_search if "ef_search" in info.knobs else None,
        nprobe=info.nprobe if "nprobe" in info.knobs else None,
    )
    found = [one.shard.search_now(ShardQueries(golden.vectors), options) for one in loaded]
    matched = total = 0
    for query, parts in enumerate(zip(*found, strict=True)):
        expected = sum(shard_of(answer, shards) in numbers for answer in golden.ids[query])
        total += expected
        hits = (hit for part in parts for hit in zip(part.ids, part.scores, strict=True))
        matched += min(golden.count_good(query, hits), expected)
    if total == 0:
        return None
    recall = matched / total
    check_recall(recall, manifest, "here", "rebuild it on this machine")
    return round(recall, 4)
