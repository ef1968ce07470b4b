"""Writes the items of a shard as an Arrow file: one record per document, in id order.

Columns: id string; title, text large_string; chunk_starts, chunk_ends list<int64>, code points of
text, one entry per chunk, so that chunk c of a document is row (chunks before it) + c of the index;
attributes string, JSON (see `attributes.encode`). Fields of `records.DocumentVersion` that
any document of the snapshot uses follow: version, changed and placed int64, expires int64 or null,
patches string; times are microseconds since 1970. A batch holds at most 4,096 documents or about
64 MiB of text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from index_builder.documents.spool import StoredDocument
from retrieval.index.item_table import ITEMS_SCHEMA

_VERSION_SCHEMA = pa.schema(
    [
        ("version", pa.int64()),
        ("expires", pa.int64()),
        ("changed", pa.int64()),
        ("placed", pa.int64()),
        ("patches", pa.string()),
    ]
)
_BATCH_DOCUMENTS = 4_096
_BATCH_CHARACTERS = 64 << 20


def write_items(
    path: Path, documents: Iterable[StoredDocument], version_fields: Sequence[object] = ()
) -> None:
    """Writes the items of a shard.

    Args:
        path: The file to write.
        documents: In id order; memory holds one batch at a time.
        version_fields: For each field of a `DocumentVersion`, whether to write it; empty: none.
    Raises: OSError: no space, no permission.
    """
    used = [number for number, needed in enumerate(version_fields) if needed]
    schema = pa.schema([*ITEMS_SCHEMA, *(_VERSION_SCHEMA.field(number) for number in used)])
    with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        batch: list[StoredDocument] = []
        characters = 0
        for document in documents:
            batch.append(document)
            characters += len(document.text) + len(document.attributes)
            if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
                writer.write_batch(_batch(batch, schema, used))
                batch.clear()
                characters = 0
        if batch:
            writer.write_batch(_batch(batch, schema, used))


def _batch(
    documents: list[StoredDocument], schema: pa.Schema, used: Sequence[int]
) -> pa.RecordBatch:
    counts = [len(document.bounds) for document in documents]
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
    bounds = np.concatenate([document.bounds for document in documents])
    starts, ends = (
        pa.ListArray.from_arrays(offsets, pa.array(bounds[:, side], pa.int64())) for side in (0, 1)
    )
    ids, titles, texts, attributes = (
        [document[field] for document in documents] for field in range(4)
    )
    return pa.record_batch(
        [
            *(pa.array(ids, pa.string()), pa.array(titles, pa.large_string())),
            *(pa.array(texts, pa.large_string()), starts, ends),
            pa.array(attributes, pa.string()),
            *(
                pa.array(
                    [document.version[number] for document in documents],
                    _VERSION_SCHEMA.field(number).type,
                )
                for number in used
            ),
        ],
        schema=schema,
    )
