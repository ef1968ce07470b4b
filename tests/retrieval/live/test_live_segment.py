"""The vectors of documents in a live segment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nearline.contract import PayloadField
from nearline.v1 import snapshot_pb2
from tests.retrieval.live.base_shards import Base, Log, base_of
from tests.retrieval.small_snapshots import documents_of


@pytest.fixture(name="base", scope="module")
def give_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder: Path = tmp_path_factory.mktemp("base")
    return base_of(folder, documents_of(np.ones((1, 4), np.float32)))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("cosine", [0.6, 0.8, 0, 0]), ("inner_product", [1.5, 2, 0, 0])],
)
def test_the_vector_of_a_document_has_unit_length_for_cosine_only(
    base: Base, metric: str, expected: list[float]
) -> None:
    manifest = snapshot_pb2.Manifest()
    manifest.CopyFrom(base.manifest)
    manifest.metric = metric
    delta = base._replace(manifest=manifest).delta()
    (document,) = documents_of(np.ones((1, 4), np.float32))
    rows = np.array([[3, 0, 0, 0], [0, 4, 0, 0]], np.float32)
    changed = replace(document, id="x", vectors=rows, text="ab", bounds=[(0, 1), (1, 2)])
    delta.apply([Log().upsert(changed)])
    part = delta.view.part
    assert part is not None
    (item,) = part.scan("", None, frozenset({PayloadField.VECTOR}), delta.view.part_alive)
    assert item.vector is not None
    assert item.vector.tolist() == pytest.approx(expected)
    delta.close()
