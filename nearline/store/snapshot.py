"""Snapshots, alias records and change logs in a store: layout, reading and verification.

Layout:
    <store>/<collection>/snapshots/<id>/manifest.json, shards/<nnn>/, golden/
    <store>/<collection>/aliases/<epoch:010d>.json
    <store>/<collection>/log/<number:010d>.json, <number:010d>.ready
    <store>/<collection>/log/<log id>/<number:010d>.parquet
Alias and log records are created and never changed; the record with the highest number is current.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path

from nearline.access.method_guard import current_caller
from nearline.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    SnapshotCorrupt,
    SnapshotMismatch,
)
from nearline.internal.v1 import change_pb2
from nearline.items.attributes import KINDS, LIST
from nearline.store.durable import check_digest
from nearline.store.files import Digest, StoreFiles
from nearline.store.json_records import RecordSeries, read_message
from nearline.store.local import LocalFiles
from nearline.store.manifest_files import listed_files
from nearline.store.open import open_files
from nearline.store.snapshot_ids import check_snapshot_id, is_snapshot_id, unknown_snapshot
from nearline.v1 import snapshot_pb2
from nearline.wire.limits import COLLECTION

SCHEMA_VERSION = 1
# Behaviour tables are divided among shards; readers of version 1 do not know where they are.
DIVIDED_VERSION = 2
# Kinds of attributes, by their name in a manifest.
KIND_NAMES = {
    snapshot_pb2.AttributeField.Kind.Value(f"KIND_{name.upper()}"): name for name in KINDS
}
PARTITIONS = 64
MANIFEST, ALIASES, RERANKER_FILE = "manifest.json", "aliases", "reranker.safetensors"
# About a damaged file.
_REMEDY = "restore it or rebuild"
# Other collections that an error names.
_MOST_NAMED = 8
_COLLECTION = re.compile(COLLECTION.pattern)
_LOG_ID = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"([0-9]{10})\.parquet")


def kind_name(attribute: snapshot_pb2.AttributeField) -> str:
    """Returns the kind of an attribute as it is declared: "int", or "int[]" for lists."""
    return KIND_NAMES[attribute.kind] + LIST * attribute.is_list


def partition_of(document_id: str) -> int:
    """Returns the partition of a document, 0..63: CRC-32 of its UTF-8 id modulo 64."""
    return zlib.crc32(document_id.encode()) % PARTITIONS


def shard_of(document_id: str, shards: int) -> int:
    """Returns the shard of a document: shards hold contiguous runs of partitions."""
    return partition_of(document_id) * shards // PARTITIONS


def partitions_of(shard: int, shards: int) -> list[int]:
    """Returns the partitions of a shard, ascending."""
    return [one for one in range(PARTITIONS) if one * shards // PARTITIONS == shard]


def check_collection(name: str) -> str:
    """Returns the name, or raises InvalidRequest unless it matches [a-z0-9][a-z0-9_-]{0,62}."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidRequest(
            f"collection name {name!r} is not allowed; use 1..63 of a-z 0-9 _ -, starting with a "
            "letter or digit",
            field="collection",
        )
    return name


def shard_folder(snapshot: Path, shard: int) -> Path:
    """Returns the folder of one shard."""
    return snapshot / "shards" / f"{shard:03d}"


class Store:
    """A snapshot store: snapshots, alias records, change logs and their files.

    Args:
        files: The storage backend, or the path of a local folder, which the first write creates.
    """

    def __init__(self, files: Path | StoreFiles) -> None:
        self.files: StoreFiles = LocalFiles(files) if isinstance(files, Path) else files
        # Alias records never change: the newest is read once, then only newer names are listed.
        # An object store receives one small request per second, however long the history.
        self._newest: dict[str, tuple[str, snapshot_pb2.AliasRecord]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @classmethod
    def open(cls, url: str, cache_dir: str = "") -> Store:
        """Opens a store.

        Args:
            url: A folder, file://, s3://bucket/prefix, gs://bucket/prefix, or az://container/prefix
                (with AZURE_STORAGE_ACCOUNT_NAME).
            cache_dir: Cache of an object store's files; if empty, NEARLINE_CACHE_DIR or the user's
                cache folder.
        Raises: StoreError: an unsupported scheme, a missing library, or an unencrypted endpoint.
        """
        return cls(open_files(url, cache_dir))

    @property
    def url(self) -> str:
        """The value of --store: a folder or a URL."""
        return self.files.url

    def collections(self) -> list[str]:
        """Lists collections that have a snapshot in force, alphabetically."""
        return [
            name
            for name in self.files.names("")
            if _COLLECTION.fullmatch(name) and self._is_in_force(name)
        ]

    def snapshots_folder(self, collection: str) -> Path:
        """Returns the local folder of a collection's snapshots, or of their cache.

        Snapshots are written next to their final place, under a name that starts with a dot.
        """
        return self.files.folder / check_collection(collection) / "snapshots"

    def snapshot_folder(self, collection: str, snapshot_id: str) -> Path:
        """Returns the local folder of a snapshot; with an object store it holds the fetched files.

        Raises: InvalidRequest: not a snapshot id. NotFound: no such snapshot.
        """
        path = f"{check_collection(collection)}/snapshots/{snapshot_id}"
        if is_snapshot_id(snapshot_id) and self.files.holds(f"{path}/{MANIFEST}"):
            return self.files.folder / path
        raise unknown_snapshot(snapshot_id, collection, self.snapshot_ids(collection), self.url)

    def snapshot_ids(self, collection: str) -> list[str]:
        """Lists published snapshots, newest first."""
        return [name for name, published in self._snapshots(collection) if published]

    def unfinished_ids(self, collection: str) -> list[str]:
        """Lists snapshots without a manifest, newest first: uploads in progress, and remains of
        interrupted uploads and removals.
        """
        return [name for name, published in self._snapshots(collection) if not published]

    def manifest(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        """Reads a manifest.

        Raises: NotFound. SnapshotCorrupt: not a manifest. SnapshotMismatch: unknown schema version.
        """
        self.snapshot_folder(collection, snapshot_id)  # Raises if it does not exist.
        path = f"{_snapshot_path(collection, snapshot_id)}/{MANIFEST}"
        manifest = read_message(self.files, path, snapshot_pb2.Manifest(), _REMEDY)
        if manifest.schema_version not in (SCHEMA_VERSION, DIVIDED_VERSION):
            raise SnapshotMismatch(
                f"snapshot {snapshot_id} has schema version {manifest.schema_version}, this "
                f"nearline reads {SCHEMA_VERSION} and {DIVIDED_VERSION}; rebuild it or change the "
                "nearline version"
            )
        return manifest

    def aliases(self, collection: str) -> RecordSeries[snapshot_pb2.AliasRecord]:
        """Returns the alias records of a collection, by name."""
        folder = f"{check_collection(collection)}/{ALIASES}"
        return RecordSeries(self.files, folder, snapshot_pb2.AliasRecord, _REMEDY)

    def alias_records(self, collection: str) -> Iterator[snapshot_pb2.AliasRecord]:
        """Yields the alias history, newest first; the first record is the newest one."""
        return self.aliases(collection).newest_first()

    def alias_in_force(self, collection: str) -> snapshot_pb2.AliasRecord:
        """Reads the current alias record; cheap enough to call every second.

        Raises: NotFound: no snapshot was ever published, or the collection was dropped.
        """
        record = self.newest_alias_record(collection)
        if record is None or record.dropped:
            names = filter(current_caller().may_read, self.collections())
            others = ", ".join(map(repr, islice(names, _MOST_NAMED)))
            known = f", which has {others}" if others else ", which has none yet"
            raise NotFound(
                f"collection {collection!r} has no published snapshot in store {self.url}{known}; "
                "name another collection or store, or build it: nearline build --corpus FILE "
                f"--store {self.url} --collection {collection} (or nearline collections create "
                f"{collection})"
            )
        return record

    def newest_alias_record(self, collection: str) -> snapshot_pb2.AliasRecord | None:
        """Reads the newest alias record, which may say that the collection was dropped.

        Returns: The record; None if there never was one.
        """
        known = self._newest.get(collection)
        newest = self.aliases(collection).newest(known[0] if known else "")
        if newest is not None:
            self._newest[collection] = known = newest
        return None if known is None else deepcopy(known[1])

    def create_alias_record(self, collection: str, record: snapshot_pb2.AliasRecord) -> None:
        """Creates the record of `record.epoch`, whole or not at all.

        Raises: AlreadyExists: a concurrent writer created that epoch.
        """
        try:
            self.aliases(collection).create(record.epoch, record)
        except AlreadyExists as error:
            raise AlreadyExists(
                f"alias record {record.epoch} of {collection!r} exists; read the aliases again"
            ) from error

    def log_records(self, collection: str) -> Iterator[change_pb2.LogRecord]:
        """Yields the change log records of a collection, newest first; the first is current."""
        return self._log_series(collection).newest_first()

    def log_in_force(self, collection: str) -> change_pb2.LogRecord | None:
        """Returns the current change log record, or None if the collection never had a log."""
        return next(self.log_records(collection), None)

    def create_log_record(self, collection: str, record: change_pb2.LogRecord) -> None:
        """Creates the record of `record.number`, whole or not at all.

        Raises: AlreadyExists: a concurrent writer created that number.
        """
        self._log_series(collection).create(record.number, record)

    def log_ready(self, collection: str, number: int) -> bool:
        """Returns whether the log of a record was created; if it is missing now, it was lost."""
        return self.files.holds(f"{_logs(collection)}/{number:010d}.ready")

    def mark_log_ready(self, collection: str, number: int) -> None:
        """Records permanently that the log of a record was created."""
        with contextlib.suppress(AlreadyExists):
            self.files.create(f"{_logs(collection)}/{number:010d}.ready", b"")

    def log_segments(self, collection: str, log_id: str) -> list[int]:
        """Lists the numbers of the archived segments of a log, in order."""
        names = self.files.names(_segments(collection, log_id))
        return [int(match[1]) for name in names if (match := _SEGMENT.fullmatch(name))]

    def create_log_segment(self, collection: str, log_id: str, number: int, data: bytes) -> None:
        """Creates a segment, whole and durable or not at all.

        Raises: AlreadyExists: the segment exists.
        """
        self.files.create(_segment(collection, log_id, number), data)

    def read_log_segment(self, collection: str, log_id: str, number: int) -> bytes:
        """Reads a segment whole. Raises: NotFound."""
        return self.files.read(_segment(collection, log_id, number))

    def remove_log_segment(self, collection: str, log_id: str, number: int) -> None:
        """Removes a segment if it exists."""
        self.files.remove_file(_segment(collection, log_id, number))

    def publish(self, folder: Path, collection: str, snapshot_id: str) -> Path:
        """Publishes a finished folder, manifest included, as a snapshot, whole or not at all.

        Args:
            folder: The folder, inside `snapshots_folder`; it is moved.
        Returns: The local folder of the snapshot.
        """
        path = _snapshot_path(collection, snapshot_id)
        self.files.publish(folder, path, MANIFEST)
        return self.files.folder / path

    def remove_snapshot(self, collection: str, snapshot_id: str) -> None:
        """Removes a snapshot or its remains; the manifest is removed first."""
        self.files.remove(_snapshot_path(collection, snapshot_id), MANIFEST)

    def remove_unless(self, collection: str, snapshot_id: str, is_used: Callable[[], bool]) -> bool:
        """Removes a snapshot or its remains unless it is used; returns whether it did.

        Whoever begins to use a snapshot says so, then looks for its manifest. Here the manifest
        goes, then `is_used` looks: so one of the two sees the other.
        """
        path = f"{_snapshot_path(collection, snapshot_id)}/{MANIFEST}"
        if is_used():
            return False
        with contextlib.suppress(NotFound):
            manifest = self.files.read(path)
            self.files.remove_file(path)
            if is_used():
                self.files.create(path, manifest)
                return False
        self.remove_snapshot(collection, snapshot_id)
        return True

    def fetch(self, collection: str, snapshot_id: str, prefixes: Sequence[str] = ("",)) -> int:
        """Provides files in the snapshot's local folder, verified against the manifest.

        With an object store, missing files are downloaded and interrupted downloads resumed.

        Args:
            prefixes: Prefixes of the requested paths.
        Returns: Total size of the files in bytes.
        Raises: SnapshotCorrupt: a file is missing, or its size or SHA-256 differs.
        """
        return self._each_file(collection, snapshot_id, prefixes, self.files.fetch)

    def verify(self, collection: str, snapshot_id: str, prefixes: Sequence[str] = ("",)) -> int:
        """Rereads files from the store, not the cache, and verifies them against the manifest.

        Args:
            prefixes: Prefixes of the requested paths.
        Returns: Bytes checked.
        Raises: SnapshotCorrupt: a file is missing, or its size or SHA-256 differs.
        """
        return self._each_file(collection, snapshot_id, prefixes, self._verify)

    def _verify(self, path: str, expected: Digest) -> None:
        try:
            found = self.files.digest(path)
        except NotFound:
            found = None
        check_digest(f"{self.url}/{path}", found, expected)

    def _each_file(
        self,
        collection: str,
        snapshot_id: str,
        prefixes: Sequence[str],
        check: Callable[[str, Digest], None],
    ) -> int:
        path = _snapshot_path(collection, snapshot_id)
        total = 0
        for name, expected in listed_files(self.manifest(collection, snapshot_id), prefixes):
            check(f"{path}/{name}", expected)
            total += expected.bytes
        return total

    def _snapshots(self, collection: str) -> Iterator[tuple[str, bool]]:
        folder = f"{check_collection(collection)}/snapshots"
        for name in reversed(self.files.names(folder)):
            if is_snapshot_id(name):
                yield name, self.files.holds(f"{folder}/{name}/{MANIFEST}")

    def _is_in_force(self, collection: str) -> bool:
        known = self._newest.get(collection)
        if known is not None and not known[1].dropped:
            return True
        try:
            record = self.newest_alias_record(collection)
        except SnapshotCorrupt:
            return True  # Whoever reads the record gets the error.
        return record is not None and not record.dropped

    def _log_series(self, collection: str) -> RecordSeries[change_pb2.LogRecord]:
        return RecordSeries(self.files, _logs(collection), change_pb2.LogRecord, _REMEDY)


def _logs(collection: str) -> str:
    return f"{check_collection(collection)}/log"


def _segments(collection: str, log_id: str) -> str:
    if not _LOG_ID.fullmatch(log_id):
        raise InvalidRequest(f"{log_id!r} is not the id of a change log", field="log_id")
    return f"{_logs(collection)}/{log_id}"


def _segment(collection: str, log_id: str, number: int) -> str:
    return f"{_segments(collection, log_id)}/{number:010d}.parquet"


def _snapshot_path(collection: str, snapshot_id: str) -> str:
    check_snapshot_id(snapshot_id)
    return f"{check_collection(collection)}/snapshots/{snapshot_id}"
