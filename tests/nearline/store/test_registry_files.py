"""The model registry in every storage backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import SnapshotCorrupt
from nearline.internal.v1 import model_pb2
from nearline.store.files import StoreFiles
from nearline.store.registry import Registry
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2


def test_files_come_back_from_the_store_as_they_were_added(
    files: StoreFiles, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "inner" / "b.txt").write_text("b")
    store = Store(files)
    registry = Registry(store)
    card = model_pb2.ModelCard(description="two files")
    refs = [registry.add("embedder", "pair", card, source) for _ in range(2)]
    bare = model_pb2.ModelCard(ref=snapshot_pb2.ModelRef(fingerprint="f"))
    assert registry.add("embedder", "bare", bare).version == 1
    assert [one.version for one in refs] == [1, 2]
    assert registry.versions("embedder", "pair") == [2, 1]
    assert refs[0].fingerprint == refs[1].fingerprint
    registry.stage("embedder", "pair", 1, "production", why="the first")
    assert registry.resolve("pair@production") == refs[0]
    folder = registry.fetch(refs[0])
    assert (folder / "a.txt").read_text() == "a"
    assert (folder / "inner" / "b.txt").read_text() == "b"
    assert store.collections() == []


def test_another_machine_downloads_the_files_and_refuses_changed_ones(
    s3: str, tmp_path: Path
) -> None:
    (tmp_path / "ranker.txt").write_text("trees")
    ref = Registry(Store.open(s3)).add(
        "ranker", "shop", model_pb2.ModelCard(), tmp_path / "ranker.txt"
    )
    other = Store.open(s3, str(tmp_path / "elsewhere"))
    assert (Registry(other).fetch(ref) / "ranker.txt").read_text() == "trees"
    path = "_models/ranker/shop/versions/0000000001/files/ranker.txt"
    other.files.remove_file(path)
    other.files.create(path, b"wrong")
    third = Registry(Store.open(s3, str(tmp_path / "third")))
    with pytest.raises(SnapshotCorrupt, match=r"ranker\.txt has SHA-256"):
        third.fetch(ref)
