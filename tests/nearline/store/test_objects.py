"""Object stores: a cache that is filled, repaired and bounded, and clear errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest
from obstore.store import MemoryStore

from nearline.errors import SnapshotCorrupt, StoreError
from nearline.store import objects
from nearline.store.objects import KEPT, ObjectFiles
from nearline.store.open import open_files
from nearline.store.snapshot import Store
from tests.nearline.store.test_files import SNAPSHOT, digest_of, publish

PATH = f"{SNAPSHOT}/dense"
DATA = bytes(range(100))


class Ranges:
    """Forwards range requests and records their offsets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[int] = []
        self._get_range = obstore.get_range
        monkeypatch.setattr(obstore, "get_range", self._record)
        monkeypatch.setattr(objects, "_BLOCK_BYTES", 10)

    def _record(self, store: MemoryStore, path: str, *, start: int, length: int) -> obstore.Bytes:
        self.starts.append(start)
        return self._get_range(store, path, start=start, length=length)


@pytest.fixture
def files(tmp_path: Path) -> ObjectFiles:
    store = MemoryStore()
    obstore.put(store, PATH, DATA)
    return ObjectFiles(store, "memory://", tmp_path / "cache")


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Ranges:
    return Ranges(monkeypatch)


def test_a_file_is_downloaded_once_in_blocks(files: ObjectFiles, ranges: Ranges) -> None:
    for _ in range(2):
        files.fetch(PATH, digest_of(DATA))
    assert sorted(ranges.starts) == list(range(0, 100, 10))
    assert (files.folder / PATH).read_bytes() == DATA


def test_an_interrupted_download_is_resumed(files: ObjectFiles, ranges: Ranges) -> None:
    part = files.folder / SNAPSHOT / ".dense.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:73])
    files.fetch(PATH, digest_of(DATA))
    assert sorted(ranges.starts) == [73, 83, 93]
    assert [p.name for p in part.parent.iterdir()] == ["dense"]
    assert (files.folder / PATH).read_bytes() == DATA


@pytest.mark.parametrize("left", [b"\xff" * 73, b"\xff" * 100, b"\xff" * 200])
def test_a_damaged_partial_download_is_restarted(files: ObjectFiles, left: bytes) -> None:
    part = files.folder / SNAPSHOT / ".dense.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    files.fetch(PATH, digest_of(DATA))
    assert (files.folder / PATH).read_bytes() == DATA


def test_a_flipped_byte_in_the_cache_is_repaired(files: ObjectFiles) -> None:
    files.fetch(PATH, digest_of(DATA))
    (files.folder / PATH).write_bytes(b"\x01" + DATA[1:])
    files.fetch(PATH, digest_of(DATA))
    assert (files.folder / PATH).read_bytes() == DATA


@pytest.mark.parametrize("size", [99, 101])
def test_an_object_of_another_size_is_refused_before_it_is_read(
    files: ObjectFiles, ranges: Ranges, size: int
) -> None:
    with pytest.raises(SnapshotCorrupt, match=f"dense has 100 bytes, the manifest says {size};"):
        files.fetch(PATH, digest_of(bytes(size)))
    assert ranges.starts == []


def test_a_file_of_several_blocks_is_uploaded_in_parts_and_downloaded_whole(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(objects, "_BLOCK_BYTES", 5 << 20)  # The smallest part that S3 accepts.
    data = rng.bytes((12 << 20) + 7)
    publish(open_files(s3), dense=data)
    elsewhere = open_files(s3, str(tmp_path / "other"))
    elsewhere.fetch(f"{SNAPSHOT}/shards/dense", digest_of(data))
    assert (elsewhere.folder / SNAPSHOT / "shards/dense").read_bytes() == data
    assert elsewhere.digest(f"{SNAPSHOT}/shards/dense") == digest_of(data)


def test_the_cache_keeps_the_snapshots_used_last(files: ObjectFiles) -> None:
    names = [f"{SNAPSHOT[:-1]}{n}" for n in range(KEPT + 2)]
    for number, name in enumerate(names):
        publish(files, name, dense=DATA)
        # Some file systems have a coarse clock.
        os.utime(files.folder / name, (number, number))
    snapshots = files.folder / "docs/snapshots"
    assert sorted(p.name for p in snapshots.iterdir() if p.is_dir()) == [
        Path(name).name for name in names[-KEPT:]
    ]
    files.fetch(f"{names[0]}/shards/dense", digest_of(DATA))
    assert (files.folder / names[0] / "shards/dense").read_bytes() == DATA
    assert not (files.folder / names[-KEPT]).exists()
    # One that is read again from the cache is used as well.
    files.fetch(f"{names[-2]}/shards/dense", digest_of(DATA))
    publish(files, f"{SNAPSHOT[:-1]}9", dense=DATA)
    assert (files.folder / names[-2]).exists() and not (files.folder / names[-1]).exists()


def test_what_another_process_downloaded_meanwhile_is_not_read_again(
    files: ObjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges, locked = Ranges(monkeypatch), objects._locked

    @contextlib.contextmanager
    def locked_later(snapshots: Path) -> Iterator[None]:
        monkeypatch.setattr(objects, "_locked", locked)
        # The other process had the lock first.
        files.fetch(PATH, digest_of(DATA))
        with locked(snapshots):
            yield

    monkeypatch.setattr(objects, "_locked", locked_later)
    files.fetch(PATH, digest_of(DATA))
    assert sorted(ranges.starts) == list(range(0, 100, 10))


def test_a_snapshot_in_use_stays_readable_after_its_removal_from_the_cache(
    files: ObjectFiles,
) -> None:
    files.fetch(PATH, digest_of(DATA))
    with (files.folder / PATH).open("rb") as held:
        for number in range(KEPT):
            os.utime(files.folder / SNAPSHOT, (0, 0))
            publish(files, f"{SNAPSHOT[:-1]}{number}", dense=b"new")
        assert not (files.folder / SNAPSHOT).exists()
        assert held.read() == DATA


def test_a_newer_alias_is_found_by_listing_only_later_names(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearline.v1.snapshot_pb2 import AliasRecord

    store, writer = Store.open(s3), Store.open(s3)
    writer.create_alias_record("docs", AliasRecord(epoch=1, current="one"))
    assert store.alias_in_force("docs").current == "one"
    listed: list[str] = []
    names = store.files.names

    def recorded(path: str, after: str = "") -> list[str]:
        listed.append(after)
        return names(path, after)

    monkeypatch.setattr(store.files, "names", recorded)
    assert store.alias_in_force("docs").current == "one"
    writer.create_alias_record("docs", AliasRecord(epoch=2, current="two"))
    assert store.alias_in_force("docs").current == "two"
    assert store.alias_in_force("docs").current == "two"
    assert listed == ["0000000001.json", "0000000001.json", "0000000002.json"]


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("http://127.0.0.1:9000", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("https://s3.example.org", True),
        ("http://10.0.0.7:9000", False),
        ("http://s3.example.org", False),
    ],
)
def test_unencrypted_http_is_allowed_only_on_this_machine(
    endpoint: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    if allowed:
        assert open_files("s3://bucket/prefix/").url == "s3://bucket/prefix"
        return
    with pytest.raises(StoreError, match=r"AWS_ENDPOINT_URL .*unencrypted; use https"):
        open_files("s3://bucket/prefix")


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "az://container/prefix"])
def test_stores_of_other_vendors_are_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    assert open_files(url).url == url


def test_an_endpoint_that_does_not_answer_is_named(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline.store.open._RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # The port that discards.
    with pytest.raises(StoreError, match=f"{s3}: cannot list .*the endpoint"):
        Store.open(s3).collections()


def test_missing_credentials_are_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearline.store.open._RETRIES", 0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        Store.open(s3).collections()


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(StoreError, match=r"no-such.*check that the bucket exists"):
        Store.open("s3://no-such-bucket/prefix").collections()


def test_a_prefix_is_a_store_of_its_own(s3: str, tmp_path: Path) -> None:
    open_files(s3).create("docs/aliases/0000000001.json", b"{}")
    other = open_files(f"{s3}-2")
    assert other.names("") == []
    assert other.folder != open_files(s3).folder
    assert other.folder.is_relative_to(tmp_path / "cache")
