"""`ItemTable`: lookups, chunks, payloads and batches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store, shard_folder
from retrieval.index.item_table import ItemTable
from tests.retrieval.small_snapshots import Document, write_snapshot


def table_of(root: Path, documents: list[Document], batch: int) -> ItemTable:
    snapshot = write_snapshot(root, documents, batch_documents=batch)
    folder = Store(root).snapshot_folder("default", snapshot)
    return ItemTable(shard_folder(folder, 0) / "items.arrow")


def ones(chunks: int) -> np.ndarray:
    return np.ones((chunks, 2), np.float32)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_exactly_the_existing_ids_are_found(tmp_path: Path, batch: int) -> None:
    ids = ["", "a", "a\u0000", "ab", "b", "é", "日本", "\U0001f600", "z"]
    documents = [Document(id=one, vectors=ones(1)) for one in ids]
    table = table_of(tmp_path, documents, batch)
    for one in ids:
        found = table.find(one)
        assert found is not None
        assert table.id(found) == one
    assert [table.find(other) for other in ("A", "aa", "zz", "日")] == [None] * 4


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_rows_map_to_documents_and_chunks(tmp_path: Path, batch: int) -> None:
    counts = {"a": 2, "b": 1, "c": 3}
    documents = [Document(id=name, vectors=ones(count)) for name, count in counts.items()]
    table = table_of(tmp_path, documents, batch)
    rows = np.arange(6)
    places = table.documents_of(rows)
    assert table.ids(places) == ["a", "a", "b", "c", "c", "c"]
    chunks, starts, ends = table.chunks_of(rows, places)
    assert chunks == [0, 1, 0, 0, 1, 2]
    assert starts == [0, 10, 0, 0, 10, 20]
    assert ends == [10, 20, 10, 10, 20, 30]
    assert (table.documents, table.chunks, table.max_chunks) == (3, 6, 3)
    assert table.rows_of(2).tolist() == [3, 4, 5]


def test_payloads_are_read_as_stored(tmp_path: Path) -> None:
    document = Document(
        id="a",
        vectors=ones(1),
        title="Grüße",
        text="Größe 😀 matters",
        attributes={"n": 1, "x": 1.5, "tags": ["a", "b"], "at": {"$time": "2026-01-02T00:00:00Z"}},
    )
    table = table_of(tmp_path, [document], 10)
    assert (table.title(0), table.text(0)) == ("Grüße", "Größe 😀 matters")
    assert table.text(0)[6:7] == "😀"
    assert table.attributes(0) == {
        "n": 1,
        "x": 1.5,
        "tags": ["a", "b"],
        "at": datetime(2026, 1, 2, tzinfo=UTC),
    }


@pytest.mark.parametrize("batch", [1, 100])
def test_versions_and_expiry_times_are_read_as_stored(tmp_path: Path, batch: int) -> None:
    expiries = {"a": 3_000_000, "b": None, "c": -1_500_000, "d": 3_000_000}
    documents = [
        Document(id=name, vectors=ones(1), version=number, expires=expires)
        for number, (name, expires) in enumerate(expiries.items())
    ]
    table = table_of(tmp_path, documents, batch)
    assert [table.version(document) for document in range(4)] == [0, 1, 2, 3]
    assert [table.expires(document) for document in range(4)] == [
        datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC),
        None,
        datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC),
    ]
    found, times = table.expiries()
    assert found.tolist() == [2, 0, 3]
    assert times.tolist() == [-1_500_000, 3_000_000, 3_000_000]


def test_a_file_without_live_changes_has_no_versions_and_nothing_expires(tmp_path: Path) -> None:
    table = table_of(tmp_path, [Document(id="a", vectors=ones(1))], 10)
    assert (table.version(0), table.expires(0)) == (0, None)
    assert [len(column) for column in table.expiries()] == [0, 0]


def test_documents_after_an_id_are_in_order_even_if_the_id_is_absent(tmp_path: Path) -> None:
    table = table_of(tmp_path, [Document(id=one, vectors=ones(1)) for one in "bdf"], 2)
    following = {after: list(table.following(after)) for after in ("", "a", "b", "c", "f", "g")}
    assert following == {"": [0, 1, 2], "a": [0, 1, 2], "b": [1, 2], "c": [1, 2], "f": [], "g": []}


def test_an_invalid_items_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "items.arrow"
    path.write_bytes(b"ARROW1 but not really")
    with pytest.raises(SnapshotCorrupt, match="not a readable items file"):
        ItemTable(path)
