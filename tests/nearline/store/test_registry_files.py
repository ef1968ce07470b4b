"""The model registry in every storage backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import SnapshotCorrupt
from nearline.internal.v1 import model_pb2
from nearline.store.registry import Registry
from nearline.store.snapshot import Store


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
