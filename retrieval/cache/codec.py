"""Hot lists as bytes: a checksum, a line of JSON, then the items as they go over the wire."""

from __future__ import annotations

import hashlib
import json
import zlib
from itertools import accumulate
from typing import NamedTuple

from nearline.errors import InvalidRequest
from retrieval.cache.cached_list import CachedList, ListKey
from retrieval.protocols import watermark

# The number counts the forms of a value.
_PREFIX = "nearline:hot:2"
_CHECKSUM_BYTES = 4


class StoredList(NamedTuple):
    """What lies in Redis: a list, or since when (microseconds) there is none."""

    hot: CachedList | None
    computed_us: int


def redis_key(key: ListKey) -> str:
    """Returns the name of a list in Redis."""
    digest = hashlib.blake2b(repr(tuple(key)).encode(), digest_size=32).hexdigest()
    return f"{_PREFIX}:{key.collection}:{digest}"


def pack(packed: StoredList) -> bytes:
    """Returns the bytes."""
    hot = packed.hot
    head: list[object] = [packed.computed_us]
    messages: list[bytes] = []
    if hot is not None:
        messages = list(hot.messages)
        sizes = list(map(len, messages))
        mark = hot.watermark.hex()
        head = [hot.computed_us, hot.cost_s, mark, hot.expires_us, hot.ids, sizes]
    # JSON writes a line break as two other characters.
    content = b"\n".join((json.dumps(head, separators=(",", ":")).encode(), b"".join(messages)))
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES) + content


def unpack(data: bytes) -> StoredList | None:
    """Reads bytes; None where they are damaged, or somebody else's."""
    content = data[_CHECKSUM_BYTES:]
    if data[:_CHECKSUM_BYTES] != zlib.crc32(content).to_bytes(_CHECKSUM_BYTES):
        return None
    head, _, messages = content.partition(b"\n")
    try:
        computed_us, *rest = json.loads(head)
        if not rest:
            return StoredList(None, int(computed_us))
        cost_s, mark, expires_us, ids, sizes = rest
        ends = list(accumulate(sizes, initial=0))
        parts = tuple(map(messages.__getitem__, map(slice, ends, ends[1:])))
        if len(parts) != len(ids):
            return None
        made = CachedList(
            tuple(ids), parts, int(computed_us), float(cost_s), bytes.fromhex(mark), int(expires_us)
        )
        watermark.decode_watermark(made.watermark)
        return StoredList(made, made.computed_us)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, InvalidRequest):
        return None
