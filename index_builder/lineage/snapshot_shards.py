"""The shards of a published snapshot, opened for reading documents and vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.item_table import ITEMS_FILE, ItemTable
from retrieval.index.vectors import faiss_index
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import INDEX_FILE

_EXACT = re.compile(r"(Flat|HNSW\d+(,Flat)?|IVF\d+(_HNSW\d+)?,Flat)|.*,(RFlat|Refine\(Flat\))")


def has_exact_vectors(manifest: snapshot_pb2.Manifest) -> bool:
    """Returns whether the index returns the vectors it was built from, bit for bit."""
    return _EXACT.fullmatch(manifest.index_factory) is not None


@dataclass(frozen=True, slots=True)
class SnapshotShard:
    """The documents of a shard, and its vectors if opened with them."""

    folder: Path
    items: ItemTable
    index: FaissIndex | None

    def close(self) -> None:
        """Closes the files."""
        if self.index is not None:
            self.index.close()
        self.items.close()


def open_shards(
    store: Store,
    manifest: snapshot_pb2.Manifest,
    *,
    with_index: bool,
    more_files: Sequence[str] = (),
) -> list[SnapshotShard]:
    """Fetches the files of a snapshot and opens its shards; blocks.

    Args:
        with_index: Whether vectors are needed.
        more_files: Files or folders of the snapshot to fetch in addition.
    Raises: SnapshotCorrupt: a file differs from the manifest. SnapshotMismatch: it was written by
        another version of FAISS.
    """
    names = (ITEMS_FILE, INDEX_FILE) if with_index else (ITEMS_FILE,)
    files = [f"shards/{entry.shard:03d}/{name}" for entry in manifest.shards for name in names]
    if with_index:
        faiss_index.check_version(manifest.faiss_version)
    store.fetch(manifest.collection, manifest.snapshot_id, [*files, *more_files])
    root = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
    shards = []
    for entry in manifest.shards:
        folder = shard_folder(root, entry.shard)
        items = ItemTable(folder / ITEMS_FILE)
        if (items.documents, items.chunks) != (entry.documents, entry.chunks):
            raise SnapshotCorrupt(
                f"{folder / ITEMS_FILE} has {items.documents} documents and {items.chunks} chunks, "
                f"the manifest says {entry.documents} and {entry.chunks}; rebuild the snapshot"
            )
        index = None
        if with_index:
            index = FaissIndex.load(
                folder / INDEX_FILE, manifest.index_factory, dim=manifest.dim, rows=entry.chunks
            )
        shards.append(SnapshotShard(folder, items, index))
    return shards
