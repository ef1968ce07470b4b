"""Layout of a snapshot in Milvus: collection names, keys, and one row per chunk.

Each snapshot has its own Milvus collection; one further table holds the state of every collection.
The primary key of a chunk is the id of its document, U+0001, and its number in six digits. Servers
read in key order, so rows are ordered by document id, then by chunk.

Fields of a row:
    key: Primary key.
    document: Id of the document.
    chunk: Number of the chunk.
    start, stop: Bounds of the chunk in the text of the document, in code points.
    title: Title of the document.
    passage: Text of the chunk.
    gap: Text between this chunk and the chunks before it.
    rest: Text after the last chunk; empty in all other rows. Gaps, passages and rest in order make
        up the text of the document, except for overlaps of chunks.
    attributes: JSON in the form that `filters` needs.
    version: Number of the last live change.
    expires: Microseconds since 1970, or NEVER_EXPIRES.
    vector: Vector of the chunk.
    analysed: Words of the chunk from our analyser, separated by spaces, for BM25.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

PREFIX = "nearline_"
STATES = "nearline_states"
# Ends the alias of `STATES` that belongs to an alias of a collection; see `MilvusClient.take_over`.
STATE_SUFFIX = "_state"
SEPARATOR = "\x01"
NEVER_EXPIRES = (1 << 63) - 1
# Ids have at most 512 bytes.
MAX_KEY_BYTES = 600
# Longest VARCHAR of Milvus.
MAX_TEXT_BYTES = 65_535
# Maximum number of rows of one reply, and of rows that one search may return.
MAX_ROWS = 16_384
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9]")


class MilvusHit(NamedTuple):
    """A row that a search found.

    key: Primary key. score: Larger is better. fields: The fields requested.
    """

    key: str
    score: float
    fields: Mapping[str, Any]


def collection_name(collection: str, snapshot_id: str) -> str:
    """Returns the name of the Milvus collection of a snapshot, which is unique.

    >>> collection_name("shop-de", "20261125T004218Z-1f3a9c")
    'nearline_shop_2dde_20261125T004218Z_2d1f3a9c'
    """
    # Within the parts every underscore begins an escape, so two in a row separate the parts.
    return f"{PREFIX}{_escaped(collection)}__{_escaped(snapshot_id)}"


def make_key(document_id: str, chunk: int) -> str:
    """Returns the primary key of a chunk.

    >>> make_key("a", 3)
    'a\\x01000003'
    """
    return f"{document_id}{SEPARATOR}{chunk:06d}"


def parse_key(key: str) -> tuple[str, int]:
    """Returns the document id and the chunk number of a primary key."""
    document_id, _, chunk = key.rpartition(SEPARATOR)
    return document_id, int(chunk)


def _escaped(name: str) -> str:
    return _NOT_IN_NAMES.sub(lambda sign: f"_{ord(sign[0]):02x}", name)
