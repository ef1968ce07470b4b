"""Encodes lists: a checksum, a line of JSON, and the items in their wire format."""

from __future__ import annotations

import hashlib
import json
import zlib
from itertools import accumulate
from typing import NamedTuple

from nearline.errors import InvalidRequest
from retrieval.cache.cached_list import CachedList, ListKey
from retrieval.protocols import watermark

# The number is the version of the format.
_PREFIX = "nearline:hot:2"
_CHECKSUM_BYTES = 4


class StoredList(NamedTuple):
    """A list in Redis, or the time (microseconds) at which its item did not exist."""

    cached: CachedList | None
    computed_us: int


def redis_key(key: ListKey) -> str:
    """Returns the Redis key of a list."""
    digest = hashlib.blake2b(repr(tuple(key)).encode(), digest_size=32).hexdigest()
    return f"{_PREFIX}:{key.collection}:{digest}"


def pack(stored: StoredList) -> bytes:
    """Encodes a list."""
    cached = stored.cached
    head: list[object] = [stored.computed_us]
    messages: list[bytes] = []
    if cached is not None:
        messages = list(cached.messages)
        sizes = list(map(len, messages))
        mark = cached.watermark.hex()
        head = [
            cached.computed_us,
            cached.cost_s,
            mark,
            cached.expires_us,
            cached.ids,
            sizes,
        ]
    # JSON escapes line breaks, so the first one ends the header.
    content = b"\n".join((json.dumps(head, separators=(",", ":")).encode(), b"".join(messages)))
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES) + content


def unpack(data: bytes) -> StoredList | None:
    """Decodes a list; returns None if the data is damaged or has another format."""
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
        cached = CachedList(
            tuple(ids), parts, int(computed_us), float(cost_s), bytes.fromhex(mark), int(expires_us)
        )
        watermark.decode_watermark(cached.watermark)
        return StoredList(cached, cached.computed_us)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, InvalidRequest):
        return None
