"""The events of the last 24 hours, so that each counts once: an 8-byte digest and a time each."""

from __future__ import annotations

import hashlib
import struct

DEDUP_WINDOW_S = 86_400
DIGEST_BYTES = 8
_ENTRY = struct.Struct(f"<{DIGEST_BYTES}sI")


def event_digest(event_id: str) -> bytes:
    """Returns the digest under which an event is known."""
    return hashlib.blake2b(event_id.encode(), digest_size=DIGEST_BYTES).digest()


def read_recent(raw: bytes, now_s: int) -> dict[bytes, int]:
    """Reads the events that are not older than 24 hours: when each was recorded, in seconds."""
    return {digest: at for digest, at in _ENTRY.iter_unpack(raw) if at > now_s - DEDUP_WINDOW_S}


def write_recent(recent: dict[bytes, int]) -> bytes:
    """Writes what `read_recent` reads."""
    return b"".join(_ENTRY.pack(digest, at) for digest, at in recent.items())
