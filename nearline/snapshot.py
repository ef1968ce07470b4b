"""Snapshots and alias records in a store: where they lie, how they are read and checked.

Layout:
    <store>/<collection>/snapshots/<id>/manifest.json, shards/<nnn>/, golden/
    <store>/<collection>/aliases/<epoch:010d>.json
Alias records are only ever created, never changed; the highest number is in force.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message

from nearline.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    SnapshotCorrupt,
    SnapshotMismatch,
    StoreError,
)
from nearline.v1 import snapshot_pb2

SCHEMA_VERSION = 1
PARTITIONS = 64
MANIFEST = "manifest.json"
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SNAPSHOT_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_HASH_BLOCK_BYTES = 1 << 20


def partition_of(document_id: str) -> int:
    """Gives the partition of a document, 0..63: CRC-32 of its UTF-8 id modulo 64."""
    return zlib.crc32(document_id.encode()) % PARTITIONS


def shard_of(document_id: str, shards: int) -> int:
    """Gives the shard of a document: partitions are dealt to shards in contiguous runs."""
    return partition_of(document_id) * shards // PARTITIONS


def check_collection(name: str) -> str:
    """Gives the name back, or raises InvalidRequest where it is not [a-z0-9][a-z0-9_-]{0,62}."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidRequest(
            f"collection name {name!r} is not allowed; use 1..63 of a-z 0-9 _ -, starting with a "
            "letter or digit",
            field="collection",
        )
    return name


def new_snapshot_id() -> str:
    """Makes an id that sorts by time: 20261125T004218Z-1f3a9c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def sha256_of(path: Path) -> str:
    """Hashes a file in blocks; lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def shard_folder(snapshot: Path, shard: int) -> Path:
    """Gives the folder of one shard."""
    return snapshot / "shards" / f"{shard:03d}"


def message_to_json(message: Message) -> str:
    """Writes a message in protobuf's JSON form, with the field names of the .proto."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n"


@dataclass(frozen=True, slots=True)
class Store:
    """A snapshot store in a local folder.

    Args:
        root: The folder; it need not exist before the first write.
    """

    root: Path

    @classmethod
    def open(cls, url: str) -> Store:
        """Opens a store by path or file:// URL.

        Raises: StoreError: a scheme that this version does not serve.
        """
        scheme, separator, rest = url.partition("://")
        if separator and scheme != "file":
            raise StoreError(
                f"store {url!r} has scheme {scheme!r}; only a folder or file:// is served"
            )
        return cls(Path(rest if separator else url).expanduser().absolute())

    def collections(self) -> list[str]:
        """Lists collections that have an alias record, in alphabetical order."""
        if not self.root.is_dir():
            return []
        return sorted(p.parent.name for p in self.root.glob("*/aliases") if any(p.glob("*.json")))

    def snapshots_folder(self, collection: str) -> Path:
        """Gives the folder that holds the snapshots of a collection."""
        return self.root / check_collection(collection) / "snapshots"

    def snapshot_folder(self, collection: str, snapshot_id: str) -> Path:
        """Gives the folder of a snapshot.

        Raises: InvalidRequest: not a snapshot id. NotFound: no such snapshot.
        """
        if not _SNAPSHOT_ID.fullmatch(snapshot_id):
            raise InvalidRequest(f"{snapshot_id!r} is not a snapshot id", field="snapshot_id")
        folder = self.snapshots_folder(collection) / snapshot_id
        if not (folder / MANIFEST).is_file():
            raise NotFound(
                f"collection {collection!r} has no snapshot {snapshot_id}; "
                f"`nearline snapshots list --store {self.root}` shows what there is"
            )
        return folder

    def snapshot_ids(self, collection: str) -> list[str]:
        """Lists published snapshots, newest first."""
        folder = self.snapshots_folder(collection)
        names = (p.parent.name for p in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else ()
        return sorted((n for n in names if _SNAPSHOT_ID.fullmatch(n)), reverse=True)

    def manifest(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        """Reads a manifest.

        Raises: NotFound. SnapshotCorrupt: not a manifest. SnapshotMismatch: unknown schema version.
        """
        path = self.snapshot_folder(collection, snapshot_id) / MANIFEST
        manifest = snapshot_pb2.Manifest()
        _parse(path, manifest)
        if manifest.schema_version != SCHEMA_VERSION:
            raise SnapshotMismatch(
                f"snapshot {snapshot_id} has schema version {manifest.schema_version}, this "
                f"nearline reads {SCHEMA_VERSION}; rebuild it or change the nearline version"
            )
        return manifest

    def alias_records(self, collection: str) -> Iterator[snapshot_pb2.AliasRecord]:
        """Reads the alias history, newest first; the first is in force."""
        folder = self.root / check_collection(collection) / "aliases"
        for path in sorted(folder.glob("[0-9]*.json"), reverse=True):
            record = snapshot_pb2.AliasRecord()
            _parse(path, record)
            yield record

    def alias_in_force(self, collection: str) -> snapshot_pb2.AliasRecord:
        """Reads the alias record in force.

        Raises: NotFound: nothing was ever published.
        """
        for record in self.alias_records(collection):
            return record
        raise NotFound(
            f"collection {collection!r} has no published snapshot in {self.root}; "
            f"build one: nearline build --corpus FILE --store {self.root} --collection {collection}"
        )

    def create_alias_record(self, collection: str, record: snapshot_pb2.AliasRecord) -> None:
        """Creates the record of `record.epoch`, whole or not at all.

        Raises: AlreadyExists: somebody else made that epoch first.
        """
        folder = self.root / check_collection(collection) / "aliases"
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{record.epoch:010d}.json"
            temporary = folder / f".{target.name}.{secrets.token_hex(4)}"
            write_durably(temporary, message_to_json(record).encode())
            try:
                # A hard link fails where the name exists; a rename would replace it.
                os.link(temporary, target)
            except FileExistsError as error:
                raise AlreadyExists(
                    f"alias record {record.epoch} of {collection!r} exists; read the aliases again"
                ) from error
            finally:
                temporary.unlink()
            sync_folder(folder)

    def verify(self, collection: str, snapshot_id: str, prefixes: Sequence[str] = ("",)) -> int:
        """Compares every file whose path starts with one of the prefixes with the manifest.

        Returns: Bytes checked.
        Raises: SnapshotCorrupt: a file is missing, or its size or SHA-256 differs.
        """
        folder = self.snapshot_folder(collection, snapshot_id)
        total = 0
        for entry in self.manifest(collection, snapshot_id).files:
            if not entry.path.startswith(tuple(prefixes)):
                continue
            path = folder / entry.path
            size = path.stat().st_size if path.is_file() else None
            if size != entry.bytes:
                raise SnapshotCorrupt(
                    f"{path} has {'no' if size is None else size} bytes, the manifest says "
                    f"{entry.bytes}; restore the file or rebuild the snapshot"
                )
            found = sha256_of(path)
            if found != entry.sha256:
                raise SnapshotCorrupt(
                    f"{path} has SHA-256 {found}, the manifest says {entry.sha256}; "
                    "restore the file or rebuild the snapshot"
                )
            total += entry.bytes
        return total


def _parse(path: Path, message: Message) -> None:
    try:
        json_format.Parse(path.read_text("utf-8"), message, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read: {error}; restore it or rebuild") from error


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file and forces it to disk."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class store_errors:
    """Turns an OSError inside the block into a StoreError that names the path and the remedy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        remedy = {
            errno.ENOSPC: "free some space or choose another --store",
            errno.EDQUOT: "raise the quota or choose another --store",
            errno.EACCES: "make it writable for this user or choose another --store",
            errno.EROFS: "it is read-only; choose another --store",
            errno.EPERM: "make it writable for this user or choose another --store",
        }.get(error.errno or 0, "check the path and the disk")
        raise StoreError(f"store {self._path}: {error.strerror or error}; {remedy}") from error
