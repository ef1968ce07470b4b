"""Checks of an export to Milvus: whether it can hold a snapshot, and whether it is complete."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from index_builder.indexes.milvus_source import SnapshotSource
from index_builder.lineage.snapshot_shards import has_exact_vectors
from nearline.errors import InternalError, InvalidRequest, Unsupported
from nearline.v1 import snapshot_pb2
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.connection import MANAGE_S
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import parse_key
from retrieval.snapshots.golden_queries import check_recall

INDEXES = ("HNSW", "FLAT")
# Scores are inner products; vectors of metric cosine are stored with unit length.
METRICS = {"cosine": "IP", "inner_product": "IP"}
# Source: limits of Milvus.
_DIMS = range(2, 32_769)
# Number of documents and of their first chunks to read back and compare.
_SAMPLED = 16
_SAMPLED_CHUNKS = 8
_EF = 64
_GOLDEN_BATCH = 100


def check_manifest(manifest: snapshot_pb2.Manifest, index: str) -> None:
    """Raises InvalidRequest or Unsupported if Milvus cannot hold a snapshot."""
    if index not in INDEXES:
        raise InvalidRequest(f"index is {index!r}; use one of {', '.join(INDEXES)}")
    if manifest.metric not in METRICS:
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has metric {manifest.metric!r}, Milvus supports "
            f"{' and '.join(METRICS)}; build it with one of these"
        )
    if manifest.dim not in _DIMS:
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has vectors of {manifest.dim} numbers, Milvus allows "
            f"{_DIMS.start} to {_DIMS.stop - 1:,}; build it with another model"
        )
    if not has_exact_vectors(manifest):
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has index {manifest.index_factory}, which keeps "
            "vectors only approximately; build one that keeps them exactly: nearline build --index "
            "HNSW32,Flat, or add ,RFlat to the index"
        )


async def check_counts(client: MilvusClient, name: str, manifest: snapshot_pb2.Manifest) -> None:
    """Raises InternalError if the numbers of documents or chunks differ from the snapshot."""
    chunks = await client.count(name, seen=0, timeout_s=MANAGE_S)
    documents = await client.count(name, "chunk == 0", seen=0, timeout_s=MANAGE_S)
    if (documents, chunks) != (manifest.documents, manifest.chunks):
        raise InternalError(
            f"Milvus collection {name} has {documents:,} documents and {chunks:,} chunks, the "
            f"snapshot has {manifest.documents:,} and {manifest.chunks:,}; run the export again"
        )


async def check_rows(client: MilvusClient, name: str, source: SnapshotSource) -> None:
    """Raises InternalError if sampled documents differ from the snapshot."""
    wanted = {
        row["key"]: row
        for rows in source.sample(_SAMPLED)
        for row in itertools.islice(rows, _SAMPLED_CHUNKS)
    }
    documents = sorted({row["document"] for row in wanted.values()})
    fields = [field for field in next(iter(wanted.values()), {}) if field != "analysed"]
    expression = f"{any_of('document', documents)} and chunk < {_SAMPLED_CHUNKS}"
    found = await client.query(name, expression, fields, seen=0, timeout_s=MANAGE_S)
    for row in found:
        expected = wanted.pop(row["key"], {})
        differ = [field for field in fields if not _equal(row[field], expected.get(field))]
        if differ:
            raise InternalError(
                f"Milvus at {client.uri} returns a different {', '.join(differ)} of row "
                f"{row['key']!r} than was written; run the export again"
            )
    if wanted:
        raise InternalError(
            f"Milvus at {client.uri} does not return row {min(wanted)!r}; run the export again"
        )


def _equal(found: Any, written: Any) -> bool:
    if isinstance(written, np.ndarray):
        return bool(np.array_equal(np.asarray(found, np.float32), written))
    return bool(found == written)


async def measure_recall(
    client: MilvusClient,
    name: str,
    source: SnapshotSource,
    manifest: snapshot_pb2.Manifest,
    index: str,
) -> float | None:
    """Returns the recall of the golden queries; None if there are none.

    Raises: SnapshotMismatch: the recall is too low.
    """
    golden = source.golden
    wanted = 0 if golden is None else sum(map(len, golden.ids))
    if golden is None or wanted == 0:
        return None
    k = max(map(len, golden.ids))
    ef = max(k, manifest.default_ef_search or _EF) if index == "HNSW" else None
    good = 0
    for at in range(0, len(golden.vectors), _GOLDEN_BATCH):
        vectors = golden.vectors[at : at + _GOLDEN_BATCH]
        answers = await client.search(name, vectors, k, ef=ef, seen=0, timeout_s=MANAGE_S)
        for query, answer in enumerate(answers, at):
            hits = ((parse_key(one.key)[0], one.score) for one in answer)
            good += min(golden.count_good(query, hits), len(golden.ids[query]))
    recall = good / wanted
    check_recall(recall, manifest, "in Milvus", "export it with --index FLAT")
    return round(recall, 4)
