"""Behaviour that all storage backends share."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearline.errors import AlreadyExists, NotFound, SnapshotCorrupt
from nearline.store.files import Digest, StoreFiles
from nearline.store.local import LocalFiles

SNAPSHOT = "docs/snapshots/20261125T004218Z-1f3a9c"


def digest_of(data: bytes) -> Digest:
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def publish(files: StoreFiles, path: str = SNAPSHOT, **contents: bytes) -> None:
    written = files.folder / "docs" / "snapshots" / f".tmp-{Path(path).name}"
    (written / "shards").mkdir(parents=True)
    for name, data in contents.items():
        (written / "shards" / name).write_bytes(data)
    (written / "manifest.json").write_text("{}")
    files.publish(written, path, "manifest.json")


def test_names_are_sorted_and_can_start_after_a_name(files: StoreFiles) -> None:
    assert files.names("docs/aliases") == []
    for epoch in (10, 2, 1):
        files.create(f"docs/aliases/{epoch:010d}.json", b"{}")
    assert files.names("") == ["docs"]
    assert files.names("docs") == ["aliases"]
    assert files.names("docs/aliases", after="0000000001.json") == [
        "0000000002.json",
        "0000000010.json",
    ]
    assert files.names("docs/aliases", after="0000000010.json") == []


def test_a_created_file_is_readable_and_is_not_replaced(files: StoreFiles) -> None:
    files.create("a/b.json", b"one")
    with pytest.raises(AlreadyExists, match=r"b\.json"):
        files.create("a/b.json", b"two")
    assert (files.holds("a/b.json"), files.read("a/b.json")) == (True, b"one")
    assert files.digest("a/b.json") == digest_of(b"one")


def test_a_missing_file_is_named(files: StoreFiles) -> None:
    assert not files.holds("a/none")
    for ask in (files.read, files.digest):
        with pytest.raises(NotFound, match="a/none"):
            ask("a/none")


def test_exactly_one_of_eight_concurrent_writers_of_a_name_wins(files: StoreFiles) -> None:
    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            files.create("a/1.json", f"{number}".encode())
            outcomes.append(f"{number}")
        except AlreadyExists:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 7
    assert files.read("a/1.json").decode() in outcomes


def test_eight_may_remove_the_same_folder_at_once(files: StoreFiles) -> None:
    contents = {f"f{number}": b"" for number in range(50)}
    publish(files, SNAPSHOT, **contents)
    start = threading.Barrier(8)

    def remove(_: int) -> None:
        start.wait(10)
        files.remove(SNAPSHOT, "manifest.json")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove, range(8)))
    assert files.names("docs/snapshots") == [] and not (files.folder / SNAPSHOT).exists()


def test_a_file_may_be_removed_while_another_process_removes_it(
    files: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.json", "2.json"):
        files.create(f"a/{name}", b"{}")
    files.remove_file("a/1.json")
    # Gone between a look and the removal.
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    files.remove_file("a/1.json")
    monkeypatch.undo()
    assert files.names("a") == ["2.json"]


def test_a_published_folder_has_its_place_and_its_files(files: StoreFiles) -> None:
    publish(files, dense=b"vectors", items=b"")
    assert files.holds(f"{SNAPSHOT}/manifest.json")
    assert files.names(f"{SNAPSHOT}/shards") == ["dense", "items"]
    for name, data in (("dense", b"vectors"), ("items", b"")):
        files.fetch(f"{SNAPSHOT}/shards/{name}", digest_of(data))
        assert (files.folder / SNAPSHOT / "shards" / name).read_bytes() == data
        assert files.digest(f"{SNAPSHOT}/shards/{name}") == digest_of(data)
    assert [p.name for p in (files.folder / "docs/snapshots").glob(".tmp-*")] == []


def test_a_file_with_another_digest_is_corrupt_and_both_digests_are_named(
    files: StoreFiles,
) -> None:
    files.create("docs/snapshots/x/f", b"vectorz")
    with pytest.raises(SnapshotCorrupt, match="has 7 bytes, the manifest says 3"):
        files.fetch("docs/snapshots/x/f", digest_of(b"vec"))
    with pytest.raises(SnapshotCorrupt) as caught:
        files.fetch("docs/snapshots/x/f", digest_of(b"vectors"))
    for data in (b"vectorz", b"vectors"):
        assert digest_of(data).sha256 in caught.value.message
    with pytest.raises(
        SnapshotCorrupt, match=r"docs/snapshots/x/none has no bytes, the manifest says 7"
    ):
        files.fetch("docs/snapshots/x/none", digest_of(b"vectors"))


def test_a_removed_folder_is_gone_and_its_neighbour_is_not(files: StoreFiles) -> None:
    publish(files, dense=b"vectors")
    other = SNAPSHOT[:-1] + "d"
    publish(files, other, dense=b"others")
    for _ in range(2):  # Removing a missing file does nothing.
        files.remove(SNAPSHOT, "manifest.json")
    assert files.names("docs/snapshots") == [Path(other).name]
    assert not (files.folder / SNAPSHOT).exists()
    files.fetch(f"{other}/shards/dense", digest_of(b"others"))


def test_a_link_whose_answer_was_lost_has_created_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    files = LocalFiles(tmp_path)
    files.create("a/1.json", b"one")
    assert files.read("a/1.json") == b"one"
    with pytest.raises(AlreadyExists):
        files.create("a/1.json", b"two")
