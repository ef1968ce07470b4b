"""The documents of the snapshot that a build continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_builder.lineage.change_order import DocumentContent, DocumentState, decode_patches
from index_builder.lineage.snapshot_shards import (
    SnapshotShard,
    has_exact_vectors,
    open_shards,
)
from index_builder.options.build_options import BuildOptions
from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, shard_of
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.index.item_table import ITEMS_FILE

DELETED_FILE = "changes/deleted.arrow"
_DELETED = pa.schema([("id", pa.string()), ("time", pa.int64()), ("version", pa.int64())])

DeletedDocuments = dict[str, tuple[int, int]]


def matches_options(
    manifest: snapshot_pb2.Manifest, options: BuildOptions, fingerprint: str
) -> bool:
    """Returns whether a build can reuse the chunks and vectors of a snapshot for the same texts.

    Args:
        fingerprint: Fingerprint of the embedder; empty if the user brings the vectors.
    """
    if manifest.embedder.fingerprint != fingerprint:
        return False
    if not fingerprint:
        return True
    cut = (manifest.chunking.max_tokens, manifest.chunking.overlap_sentences)
    return (
        cut == (options.chunks.max_tokens, options.chunks.overlap_sentences)
        and manifest.metric == options.index.metric
        and has_exact_vectors(manifest)
    )


class ParentDocuments:
    """Documents of a snapshot, by id and in order; blocks while files are fetched.

    Args:
        store: The store.
        manifest: Manifest of the snapshot.
        with_vectors: Whether chunk bounds and vectors are needed.
    Raises: As `open_shards`.
    """

    def __init__(
        self, store: Store, manifest: snapshot_pb2.Manifest, *, with_vectors: bool
    ) -> None:
        shards = open_shards(store, manifest, with_index=with_vectors, more_files=[DELETED_FILE])
        self._shards = [_ParentShard(shard, manifest) for shard in shards]
        self._seen = [np.zeros(shard.items.documents, np.bool_) for shard in self._shards]
        deleted = store.snapshot_folder(manifest.collection, manifest.snapshot_id) / DELETED_FILE
        self.deleted = read_deleted(deleted) if deleted.exists() else {}

    def find(self, document_id: str) -> DocumentState | None:
        """Returns the state of a document and marks it as seen; None if it is unknown."""
        number = shard_of(document_id, len(self._shards))
        document = self._shards[number].items.find(document_id)
        if document is None:
            if document_id not in self.deleted:
                return None
            time_us, version = self.deleted[document_id]
            return DocumentState(None, time_us, False, version=version)
        self._seen[number][document] = True
        return self._shards[number].state(document)

    def unseen(self, changed_after_us: int | None = None) -> Iterator[tuple[str, DocumentState]]:
        """Yields the documents that were not looked up, shard by shard in id order.

        Args:
            changed_after_us: Optional; only documents with a live change after this time.
        """
        for seen, shard in zip(self._seen, self._shards, strict=True):
            wanted = ~seen
            if changed_after_us is not None:
                wanted &= shard.ever_changed
            for document in np.flatnonzero(wanted).tolist():
                state = shard.state(document)
                if changed_after_us is None or state.changed_us > changed_after_us:
                    yield shard.items.id(document), state

    def close(self) -> None:
        """Closes the files."""
        for shard in self._shards:
            shard.close()


class _ParentShard:
    def __init__(self, shard: SnapshotShard, manifest: snapshot_pb2.Manifest) -> None:
        self.items, self._index = shard.items, shard.index
        self.close = shard.close
        with pa.memory_map(str(shard.folder / ITEMS_FILE)) as source:
            table = pa.ipc.open_file(source).read_all()
            rows = table.num_rows
            self._versions = _numbers(table, "version", rows)
            self._changed = _numbers(table, "changed", rows)
            self._imported = _numbers(table, "placed", rows, _default_import_time(manifest))
            self._expires = _numbers(table, "expires", rows)
            patches = table.column("patches").to_pylist() if "patches" in table.schema.names else []
        self._patches = {row: text for row, text in enumerate(patches) if text}
        self.ever_changed: NDArray[np.bool_] = self._changed != 0
        self.ever_changed[list(self._patches)] = True

    def state(self, document: int) -> DocumentState:
        expires_us = int(self._expires[document])
        rows = self.items.rows_of(document)
        bounds = None
        if self._index is not None:
            _, starts, ends = self.items.chunks_of(rows, np.full(len(rows), document))
            bounds = np.column_stack([np.array(starts, np.int64), np.array(ends, np.int64)])
        changed_us = int(self._changed[document])
        return DocumentState(
            DocumentContent(
                self.items.title(document),
                self.items.text(document),
                self.items.attributes(document),
                from_us(expires_us) if expires_us else None,
                bounds,
                lambda: None if self._index is None else self._index.reconstruct(rows),
            ),
            changed_us or int(self._imported[document]),
            not changed_us,
            decode_patches(self._patches.get(document, "")),
            int(self._versions[document]),
        )


def read_deleted(path: Path) -> DeletedDocuments:
    """Reads the deleted documents: time in us since 1970 and version by id.

    Raises: SnapshotCorrupt: the file is malformed.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            columns = [table.column(name).to_pylist() for name in _DELETED.names]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); rebuild the snapshot") from error
    return {name: (time, version) for name, time, version in zip(*columns, strict=True)}


def write_deleted(path: Path, deleted: DeletedDocuments) -> None:
    """Writes a file for `read_deleted`, in id order. Raises: OSError."""
    rows = sorted((name, *values) for name, values in deleted.items())
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_DELETED)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, _DELETED, strict=True)]
    with path.open("wb") as stream, pa.ipc.new_file(stream, _DELETED) as writer:
        writer.write_table(pa.table(arrays, schema=_DELETED))


def _default_import_time(manifest: snapshot_pb2.Manifest) -> int:
    """Returns the import time of documents in a snapshot that does not store it per document."""
    return min((source.import_time.ToMicroseconds() for source in manifest.sources), default=0)


def _numbers(table: pa.Table, name: str, rows: int, absent: int = 0) -> NDArray[np.int64]:
    if name not in table.schema.names:
        return np.full(rows, absent, np.int64)
    column: NDArray[np.int64] = table.column(name).fill_null(0).to_numpy().astype(np.int64)
    return column
