"""The store: ids, aliases, checksums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nearline.errors import (
    InvalidRequest,
    NotFound,
    SnapshotCorrupt,
    SnapshotMismatch,
    StoreError,
)
from nearline.store.durable import sha256_of
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import (
    MANIFEST,
    Store,
    check_collection,
    partition_of,
    shard_of,
)
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.v1 import snapshot_pb2

ID = "20261125T004218Z-1f3a9c"


def write_snapshot(store: Store, snapshot_id: str = ID, schema_version: int = 1) -> Path:
    folder = store.snapshots_folder("default") / snapshot_id
    (folder / "shards" / "000").mkdir(parents=True)
    file = folder / "shards" / "000" / "dense.faiss"
    file.write_bytes(b"vectors")
    entry = snapshot_pb2.FileEntry(path="shards/000/dense.faiss", bytes=7, sha256=sha256_of(file))
    manifest = snapshot_pb2.Manifest(
        schema_version=schema_version, snapshot_id=snapshot_id, files=[entry]
    )
    (folder / MANIFEST).write_text(message_to_json(manifest))
    return folder


@given(st.text(min_size=1), st.integers(1, 64))
def test_a_document_has_one_shard_within_range(document_id: str, shards: int) -> None:
    assert 0 <= partition_of(document_id) < 64
    assert 0 <= shard_of(document_id, shards) < shards


def test_partition_is_the_published_crc32() -> None:
    # CRC-32 of "123456789" is 0xCBF43926, the check value of the polynomial.
    assert partition_of("123456789") == 0xCBF43926 % 64


def test_snapshot_ids_sort_by_time_and_are_accepted_by_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_snapshot(store)
    newer = new_snapshot_id()
    write_snapshot(store, newer)
    assert store.snapshot_ids("default") == [newer, ID]


def test_the_highest_alias_record_is_in_force(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for epoch in (1, 2, 10):
        record = snapshot_pb2.AliasRecord(epoch=epoch, current=f"s{epoch}")
        store.create_alias_record("default", record)
    assert store.alias_in_force("default").current == "s10"
    assert [r.epoch for r in store.alias_records("default")] == [10, 2, 1]
    assert store.collections() == ["default"]


def test_one_flipped_byte_is_corrupt_and_names_both_hashes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    file = write_snapshot(store) / "shards/000/dense.faiss"
    assert store.verify("default", ID) == 7
    good = sha256_of(file)
    file.write_bytes(b"vectorz")
    with pytest.raises(SnapshotCorrupt) as caught:
        store.verify("default", ID)
    assert good in caught.value.message and sha256_of(file) in caught.value.message


def test_a_file_of_the_wrong_size_names_both_sizes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    file = write_snapshot(store) / "shards/000/dense.faiss"
    file.write_bytes(b"vec")
    with pytest.raises(SnapshotCorrupt, match="has 3 bytes, the manifest says 7"):
        store.verify("default", ID)


def test_a_manifest_of_another_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_snapshot(store, schema_version=99)
    with pytest.raises(SnapshotMismatch, match=r"version 99.*reads 1"):
        store.manifest("default", ID)


def test_stored_messages_have_the_field_names_of_their_proto() -> None:
    manifest = snapshot_pb2.Manifest(schema_version=1, snapshot_id=ID)
    stored = message_to_json(manifest)
    assert json.loads(stored) == {"schema_version": 1, "snapshot_id": ID}
    assert stored.endswith("}\n")


def test_invalid_names_are_refused(tmp_path: Path) -> None:
    assert check_collection("docs-2_b") == "docs-2_b"
    for name in ("", "Docs", "../etc", "a/b", "-a", "a" * 64):
        with pytest.raises(InvalidRequest):
            check_collection(name)
    with pytest.raises(InvalidRequest):
        Store(tmp_path).snapshot_folder("default", "../../etc")


def test_an_empty_store_says_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nearline build"):
        Store(tmp_path).alias_in_force("default")


def test_an_unwritable_store_names_path_and_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreError, match=str(blocked)):
        record = snapshot_pb2.AliasRecord(epoch=1)
        Store(blocked).create_alias_record("default", record)


def test_an_unsupported_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"'ftp'; use a folder, file://, s3://"):
        Store.open("ftp://host/folder")
    with pytest.raises(StoreError, match="names no bucket"):
        Store.open("s3://")
    assert Store.open(tmp_path.as_uri()) == Store(tmp_path)
