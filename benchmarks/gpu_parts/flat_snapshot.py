"""A large Flat snapshot of random vectors, written block by block without the builder.

The builder takes a Python object for each document, which is minutes for ten million.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.gpu_parts.random_data import BLOCK_ROWS, blocks, unit_vectors
from index_builder.indexes.exact_search import ExactResults, scan
from index_builder.indexes.faiss_writer import FAISS_VERSION, empty_index, write_index
from index_builder.options.build_options import INNER_PRODUCT, IndexOptions
from nearline.errors import NotReady
from nearline.store.durable import sha256_of
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import MANIFEST, PARTITIONS, Store, shard_folder
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import ATTRIBUTES_FILE, attributes_schema
from retrieval.index.item_table import ITEMS_FILE, ITEMS_SCHEMA
from retrieval.index.vectors.vector_index import INDEX_FILE

COLLECTION = "gpu"
# Each value of the attribute is that of one row in twenty.
ATTRIBUTE, VALUES = "part", 20
_FACTORY = "Flat"
_FIELD = snapshot_pb2.AttributeField(name=ATTRIBUTE, kind=snapshot_pb2.AttributeField.KIND_INT)
# Of an empty index file: its number of rows, and at its end the number of components.
_ROWS_AT = 8
# Of what the vectors take; items take a tenth.
_DISK_FACTOR = 1.2


class FlatSnapshot(NamedTuple):
    """A snapshot of one shard; the id of row 7 is 000000007.

    index_file: The vectors are its end.
    """

    store: Path
    index_file: Path
    rows: int
    dim: int
    seed: int

    def vectors(self) -> NDArray[np.float32]:
        """Maps the vectors: (rows, dim) float32."""
        start = self.index_file.stat().st_size - 4 * self.rows * self.dim
        return np.memmap(self.index_file, np.dtype("<f4"), "r", start, (self.rows, self.dim))

    def values(self) -> NDArray[np.int64]:
        """Returns the value of the attribute of each row: (rows,) int64, 0..19."""
        return np.random.default_rng([self.seed, VALUES]).integers(0, VALUES, self.rows)


def write_flat_snapshot(store: Path, rows: int, dim: int, seed: int) -> FlatSnapshot:
    """Writes and publishes a snapshot of unit vectors in random directions.

    Raises: NotReady: the disk has too little space.
    """
    store.mkdir(parents=True, exist_ok=True)
    needed, free = round(4 * rows * dim * _DISK_FACTOR), shutil.disk_usage(store).free
    if free < needed:
        raise NotReady(
            f"{rows:,} vectors take {needed:,} bytes and {store} has {free:,}; name a larger disk "
            "with --folder"
        )
    snapshot_id = new_snapshot_id()
    folder = Store(store).snapshots_folder(COLLECTION) / snapshot_id
    shard = shard_folder(folder, 0)
    shard.mkdir(parents=True)
    snapshot = FlatSnapshot(store, shard / INDEX_FILE, rows, dim, seed)
    digests = {snapshot.index_file: _write_vectors(snapshot)}
    for path in (_write_items(shard, rows), _write_attributes(shard, snapshot.values())):
        digests[path] = sha256_of(path)
    manifest = snapshot_pb2.Manifest(
        schema_version=1,
        snapshot_id=snapshot_id,
        collection=COLLECTION,
        faiss_version=FAISS_VERSION,
        dim=dim,
        metric=INNER_PRODUCT,
        index_factory=_FACTORY,
        shards=[
            snapshot_pb2.ShardEntry(
                shard=0, partitions=range(PARTITIONS), documents=rows, chunks=rows
            )
        ],
        attributes=[_FIELD],
        documents=rows,
        chunks=rows,
        max_chunks_per_document=1,
        files=[
            snapshot_pb2.FileEntry(
                path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=digest
            )
            for path, digest in digests.items()
        ],
    )
    (folder / MANIFEST).write_text(message_to_json(manifest))
    Store(store).create_alias_record(
        COLLECTION, snapshot_pb2.AliasRecord(epoch=1, current=snapshot_id, who="benchmark")
    )
    return snapshot


def exact_results(
    snapshot: FlatSnapshot, queries: NDArray[np.float32], k: int, value: int | None = None
) -> ExactResults:
    """Returns the exact results of queries, by the CPU; each core scans a part of the vectors.

    Args:
        value: Only rows with this value of the attribute are searched. Optional.
    """
    vectors = snapshot.vectors()
    chosen = (
        np.arange(snapshot.rows) if value is None else np.flatnonzero(snapshot.values() == value)
    )
    parts = max(1, min(len(os.sched_getaffinity(0)), len(chosen) // max(k, BLOCK_ROWS)))
    cuts = np.linspace(0, len(chosen), parts + 1).astype(int).tolist()

    def scan_part(cut: tuple[int, int]) -> ExactResults:
        rows = chosen[cut[0] : cut[1]]
        part = vectors[cut[0] : cut[1]] if value is None else vectors[rows]
        found = scan(part, queries, k)
        return found._replace(rows=rows[found.rows])

    with ThreadPoolExecutor(parts) as threads:
        found = list(threads.map(scan_part, pairwise(cuts)))
    rows = np.concatenate([one.rows for one in found], axis=1)
    scores = np.concatenate([one.scores for one in found], axis=1)
    best = np.lexsort((rows, -scores), axis=1)[:, :k]
    return ExactResults(
        queries,
        np.take_along_axis(rows, best, axis=1),
        np.take_along_axis(scores, best, axis=1),
        np.min([one.lowest for one in found], axis=0),
    )


def _write_vectors(snapshot: FlatSnapshot) -> str:
    """Writes the index file; returns its SHA-256."""
    rows, dim = snapshot.rows, snapshot.dim
    write_index(empty_index(_FACTORY, dim, IndexOptions()), snapshot.index_file)
    header = bytearray(snapshot.index_file.read_bytes())
    header[_ROWS_AT : _ROWS_AT + 8] = rows.to_bytes(8, "little")
    header[-8:] = (rows * dim).to_bytes(8, "little")
    digest = hashlib.sha256(header)
    with snapshot.index_file.open("wb") as stream, ThreadPoolExecutor(1) as writer:
        stream.write(header)
        for block in blocks(unit_vectors, rows, dim, snapshot.seed):
            # One thread writes while this one hashes.
            written = writer.submit(stream.write, block.data)
            digest.update(block.data)
            written.result()
    return digest.hexdigest()


def _write_items(shard: Path, rows: int) -> Path:
    path = shard / ITEMS_FILE
    with pa.ipc.new_file(str(path), ITEMS_SCHEMA) as writer:
        for first in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - first)
            numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
            empty, zeros = pa.array([""] * count), pa.array([[0]] * count, pa.list_(pa.int64()))
            columns = {
                "id": pc.utf8_lpad(numbers, 9, "0"),
                "title": empty.cast(pa.large_string()),
                "text": empty.cast(pa.large_string()),
                "chunk_starts": zeros,
                "chunk_ends": zeros,
                "attributes": pa.array(["{}"] * count),
            }
            writer.write_batch(pa.record_batch(columns, schema=ITEMS_SCHEMA))
    return path


def _write_attributes(shard: Path, values: NDArray[np.int64]) -> Path:
    path, schema = shard / ATTRIBUTES_FILE, attributes_schema([_FIELD])
    with pa.ipc.new_file(str(path), schema) as writer:
        for first in range(0, len(values), BLOCK_ROWS):
            part = pa.array(values[first : first + BLOCK_ROWS])
            writer.write_batch(pa.record_batch([part], schema=schema))
    return path
