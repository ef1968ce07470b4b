"""The events of the last 24 hours, which deduplicate new ones: a digest and a time each."""

from __future__ import annotations

import hashlib
import struct

DEDUP_WINDOW_S = 86_400
DIGEST_BYTES = 8
_ENTRY = struct.Struct(f"<{DIGEST_BYTES}sI")


def event_digest(event_id: str) -> bytes:
    """Returns the 8-byte digest of an event id."""
    return hashlib.blake2b(event_id.encode(), digest_size=DIGEST_BYTES).digest()


def read_recent(raw: bytes, now_s: int) -> dict[bytes, int]:
    """Returns when each event of the last 24 hours was recorded, in seconds, by digest."""
    return {digest: at for digest, at in _ENTRY.iter_unpack(raw) if at > now_s - DEDUP_WINDOW_S}


def write_recent(recent: dict[bytes, int]) -> bytes:
    """Encodes events for `read_recent`."""
    return b"".join(_ENTRY.pack(digest, at) for digest, at in recent.items())
