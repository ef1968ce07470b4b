"""Encoding of changes in the log, and digests that identify requests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC

import numpy as np
from google.protobuf.message import DecodeError

from nearline import vectors
from nearline.errors import SnapshotCorrupt
from nearline.internal.v1 import change_pb2
from nearline.v1 import types_pb2
from nearline.wire.values import attributes_from_proto, value_to_proto
from retrieval.changelog.records import OWN_VECTORS, Change, ChangeKind, ChangeWrite

_KINDS = {
    ChangeKind.UPSERT: change_pb2.Change.KIND_UPSERT,
    ChangeKind.DELETE: change_pb2.Change.KIND_DELETE,
    ChangeKind.ATTRIBUTES: change_pb2.Change.KIND_ATTRIBUTES,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}


def encode_change(change: Change) -> bytes:
    """Encodes a change; see Change in change.proto."""
    message = _requested_change(change)
    message.starts.extend(change.bounds[:, 0].tolist())
    message.ends.extend(change.bounds[:, 1].tolist())
    for fingerprint, matrix in change.vectors.items():
        message.vectors[fingerprint].CopyFrom(vectors.pack(matrix))
    return message.SerializeToString()


def decode_change(data: bytes) -> Change:
    """Decodes a change; its vectors are read-only.

    Raises: SnapshotCorrupt: not written by `encode_change`, or by a newer version of it.
    """
    try:
        message = change_pb2.Change.FromString(data)
    except DecodeError:
        message = change_pb2.Change()
    kind = _KINDS_BACK.get(message.kind)
    if kind is None or not message.document_id or len(message.starts) != len(message.ends):
        raise SnapshotCorrupt(
            f"an entry of the change log ({len(data)} bytes, id {message.document_id!r}, kind "
            f"{message.kind}) cannot be decoded by this version of nearline; use the version "
            "that wrote it, or the newest"
        )
    return Change(
        document_id=message.document_id,
        kind=kind,
        title=message.title,
        text=message.text,
        attributes=attributes_from_proto(message.attributes),
        bounds=np.column_stack(
            [np.array(message.starts, np.int64), np.array(message.ends, np.int64)]
        ),
        vectors={name: _matrix(packed) for name, packed in message.vectors.items()},
        expires=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
    )


def content_digest(writes: Sequence[ChangeWrite]) -> str:
    """Hashes the writes of a request in order, as the user sent them.

    Chunks and vectors from a model are excluded: embedding a text again may yield other bits.
    Returns: SHA-256, 64 hex digits.
    """
    digest = hashlib.sha256()
    for change, if_version, _, _, as_of_us, of_owner in writes:
        message = _requested_change(change)
        if OWN_VECTORS in change.vectors:
            message.vectors[OWN_VECTORS].CopyFrom(vectors.pack(change.vectors[OWN_VECTORS]))
        content = message.SerializeToString(deterministic=True)
        as_of = "" if as_of_us is None else f"{as_of_us} "
        digest.update(f"{len(content)} {None if of_owner else if_version} {as_of}".encode())
        digest.update(content)
    return digest.hexdigest()


def _requested_change(change: Change) -> change_pb2.Change:
    message = change_pb2.Change(
        document_id=change.document_id,
        kind=_KINDS[change.kind],
        title=change.title,
        text=change.text,
    )
    for name, value in change.attributes.items():
        message.attributes[name].CopyFrom(value_to_proto(value))
    if change.expires is not None:
        message.expire_time.FromDatetime(change.expires.astimezone(UTC))
    return message


def _matrix(packed: types_pb2.Vectors) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if not packed.data:
        return np.empty((0, packed.dim), np.float32)
    return vectors.decode(packed)
