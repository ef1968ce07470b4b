"""Encodes sources and results as the bytes stored in the queue."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from nearline import wire
from nearline.contract import IngestResult, IngestSource, Item, SourceUrl
from nearline.errors import SnapshotCorrupt
from nearline.v1 import ingest_pb2


def pack_source(source: IngestSource) -> bytes:
    """Returns a source as bytes. Raises: InvalidRequest: it cannot be encoded."""
    return wire.source_to_proto(source).SerializeToString()


def unpack_source(data: bytes) -> IngestSource:
    """Decodes a source. Raises: SnapshotCorrupt, InvalidRequest: these bytes are no source."""
    try:
        return wire.source_from_proto(ingest_pb2.IngestSource.FromString(data), "source")
    except DecodeError as error:
        raise _corrupt(data) from error


def pack_result(result: IngestResult) -> bytes:
    """Returns a result as bytes."""
    return wire.ingest_result_to_proto(result).SerializeToString()


def unpack_result(data: bytes) -> IngestResult:
    """Decodes a result. Raises: SnapshotCorrupt: these bytes are no result."""
    try:
        return wire.ingest_result_from_proto(ingest_pb2.IngestResult.FromString(data))
    except DecodeError as error:
        raise _corrupt(data) from error


def source_name(source: IngestSource) -> str:
    """Returns the name that users know a source by: the id of an item, the name of a file, or a
    URL.
    """
    if isinstance(source, Item):
        return source.id
    return source.url if isinstance(source, SourceUrl) else source.name


def _corrupt(data: bytes) -> SnapshotCorrupt:
    return SnapshotCorrupt(
        f"this version of nearline cannot read an entry of the queue ({len(data)} bytes); use the "
        "version that wrote it, or the newest"
    )
