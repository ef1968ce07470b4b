"""How a snapshot lies in Milvus: names, keys, and a row per chunk.

A collection of Milvus per snapshot, and one table beside them with a row for each: what is in it.
The primary key of a chunk is its document's id, U+0001, and its number in six digits: in the order
of keys, which servers read in, stand documents by id and their chunks by number.

Fields of a row:
    key; document: id; chunk: number; start, stop: bounds in code points of the document's text.
    title: of the document. passage: the chunk's text. gap: what is between it and the chunks
    before; rest: in the last row, what comes after it. The whole text is these in order, less what
    chunks share.
    attributes: JSON as `filters` needs it. version: number of the last live change.
    expires: microseconds since 1970; NEVER: it stays.
    partition: what the attribute says that the collection is cut up by, where it is.
    vector. analysed: the chunk's words as our analyser makes them, between spaces, for BM25.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

PREFIX = "nearline_"
STATES = "nearline_states"
SEPARATOR = "\x01"
NEVER_EXPIRES = (1 << 63) - 1
# Ids have 512 bytes at most.
MAX_KEY_BYTES = 600
# Milvus' longest text.
MAX_TEXT_BYTES = 65_535
MAX_PARTITION_BYTES = 512
# Most rows of one answer, and most rows that one search may return.
MAX_ROWS = 16_384
_PARTITION_CHARACTERS = MAX_PARTITION_BYTES // 4
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9]")


class MilvusHit(NamedTuple):
    """A row that a search found.

    key: Primary key. score: Larger is better. fields: The fields requested.
    """

    key: str
    score: float
    fields: Mapping[str, Any]


def collection_name(collection: str, snapshot_id: str) -> str:
    """Returns the Milvus collection of a snapshot; different snapshots have different ones.

    >>> collection_name("shop-de", "20261125T004218Z-1f3a9c")
    'nearline_shop_2dde_20261125T004218Z_2d1f3a9c'
    """
    # Every underscore within the parts begins an escape, so that two in a row part them.
    return f"{PREFIX}{_escaped(collection)}__{_escaped(snapshot_id)}"


def partition_value(value: object) -> str:
    """Returns the field `partition` of a row, from the value of the attribute that cuts up.

    Rows without a single text share one partition; texts that begin alike may share one, too.
    """
    return value[:_PARTITION_CHARACTERS] if isinstance(value, str) else ""


def make_key(document_id: str, chunk: int) -> str:
    """Returns the primary key of a chunk.

    >>> key_of("a", 3)
    'a\\x01000003'
    """
    return f"{document_id}{SEPARATOR}{chunk:06d}"


def parse_key(key: str) -> tuple[str, int]:
    """Returns document id and chunk of a primary key."""
    document_id, _, chunk = key.rpartition(SEPARATOR)
    return document_id, int(chunk)


def _escaped(name: str) -> str:
    return _NOT_IN_NAMES.sub(lambda sign: f"_{ord(sign[0]):02x}", name)
