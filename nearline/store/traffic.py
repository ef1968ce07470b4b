"""Recorded requests in files of the store, for the evaluation of other snapshots.

Layout: <store>/<collection>/traffic/<UTC time>-<6 hex>.pb.gz: a gzip of RecordedRequest messages,
each preceded by its length in four bytes, little-endian. Files are created and removed, never
changed.
"""

from __future__ import annotations

import gzip
import io
import re
import secrets
import struct
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.message import DecodeError

from nearline.errors import NotFound, SnapshotCorrupt
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store, check_collection

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\.pb\.gz")
_LENGTH = struct.Struct("<I")
# Files are untrusted input: bounds of the unpacked size, and of one message.
_MOST_BYTES = 1 << 28
_MOST_MESSAGE_BYTES = 1 << 24


def encode_traffic(requests: Iterable[RecordedRequest]) -> bytes:
    """Returns the bytes of a file; the same requests give the same bytes."""
    plain = bytearray()
    for request in requests:
        message = request.SerializeToString(deterministic=True)
        plain += _LENGTH.pack(len(message))
        plain += message
    return gzip.compress(plain, compresslevel=6, mtime=0)


def decode_traffic(data: bytes, path: str = "the file") -> list[RecordedRequest]:
    """Reads the bytes of a file.

    Args:
        data: At most 256 MiB when unpacked, a message at most 16 MiB.
        path: Name of the file in errors.
    Returns: The requests in the order written.
    Raises: SnapshotCorrupt: the file has another format, or is truncated.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacking:
            plain = unpacking.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _corrupt(path, str(error)) from error
    if len(plain) > _MOST_BYTES:
        raise _corrupt(path, f"more than {_MOST_BYTES} bytes when unpacked")
    requests: list[RecordedRequest] = []
    at = 0
    while at < len(plain):
        start = at + _LENGTH.size
        length = _LENGTH.unpack_from(plain, at)[0] if start <= len(plain) else 0
        at = start + length
        if length > _MOST_MESSAGE_BYTES or at > len(plain):
            raise _corrupt(path, f"a message at byte {start - _LENGTH.size} is cut off or too long")
        try:
            requests.append(RecordedRequest.FromString(plain[start:at]))
        except DecodeError as error:
            raise _corrupt(path, str(error)) from error
    return requests


def traffic_names(store: Store, collection: str) -> list[str]:
    """Lists the names of the files of a collection, newest first."""
    names = store.files.names(_folder(collection))
    return [name for name in reversed(names) if _NAME.fullmatch(name)]


def read_traffic(store: Store, collection: str, limit: int) -> list[RecordedRequest]:
    """Reads the newest requests.

    Args:
        store: The store.
        collection: The collection; without recorded traffic it has no requests.
        limit: Most requests to read, >= 0.
    Returns: Newest first.
    Raises: SnapshotCorrupt: a file cannot be read. StoreError.
    """
    requests: list[RecordedRequest] = []
    for name in traffic_names(store, collection):
        if len(requests) >= limit:
            break
        path = f"{_folder(collection)}/{name}"
        try:
            data = store.files.read(path)
        except NotFound:  # Removed since the listing.
            continue
        newest_first = decode_traffic(data, f"{store.url}/{path}")[::-1]
        requests += newest_first[: limit - len(requests)]
    return requests


def write_traffic(store: Store, collection: str, requests: Sequence[RecordedRequest]) -> str:
    """Writes requests as one new file, whole and durable or not at all.

    Args:
        store: The store.
        collection: The collection.
        requests: In the order of their times.
    Returns: The name of the file.
    Raises: StoreError.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}.pb.gz"
    # What people asked concerns no other user of the machine.
    store.files.create(f"{_folder(collection)}/{name}", encode_traffic(requests), private=True)
    return name


def remove_traffic(store: Store, collection: str, name: str) -> None:
    """Removes a file, if it exists. Raises: StoreError."""
    store.files.remove_file(f"{_folder(collection)}/{name}")


def remove_old_traffic(store: Store, collection: str, keep: int, age: timedelta) -> int:
    """Removes all files but the newest.

    Args:
        store: The store.
        collection: The collection.
        keep: Files that stay, >= 0.
        age: Older files do not stay.
    Returns: Files removed.
    Raises: StoreError.
    """
    oldest = f"{datetime.now(UTC) - age:%Y%m%dT%H%M%SZ}"
    names = traffic_names(store, collection)
    old = [name for place, name in enumerate(names) if place >= keep or name < oldest]
    for name in old:
        remove_traffic(store, collection, name)
    return len(old)


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/traffic"


def _corrupt(path: str, why: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{path} is not a file of recorded requests: {why}; remove it")
