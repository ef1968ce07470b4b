"""The vector of a document is the mean of its chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.pipeline import document_vectors
from nearline.contract import Item


@pytest.mark.parametrize("block", [1, 3, 1_000])
def test_documents_of_all_shards_are_in_order_of_their_ids(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(document_vectors, "_BLOCK", block)
    names = [f"d{number:02}" for number in rng.permutation(20)]
    counts = rng.integers(1, 4, 20)
    vectors = rng.normal(size=(counts.sum(), 5)).astype(np.float32)
    expected = {}
    spool = Spool(tmp_path, 3)
    spool.begin()
    row = 0
    for number, (name, count) in enumerate(zip(names, counts.tolist(), strict=True)):
        spans = [(place, place + 1) for place in range(count)]
        spool.add(
            PreparedDocument(SourceLocation("test", number), Item(id=name, text="a" * count), spans)
        )
        mean = vectors[row : row + count].astype(np.float64).mean(axis=0)
        expected[name] = mean / np.linalg.norm(mean)
        row += count
    spool.finish()
    found = document_vectors.read_document_rows(spool, 3)
    assert found.ids == sorted(names)
    made = found.vectors(vectors)
    assert made == pytest.approx(np.array([expected[name] for name in found.ids]), abs=1e-5)
    nothing = found.vectors(np.zeros_like(vectors))
    assert not nothing.any()
    spool.close()
