"""Files of interactions to import: on this machine and in a bucket, and what identifies them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.interactions.reader import ColumnNames
from nearline.contract import ImportReply, InteractionColumns as Rows
from nearline.errors import InvalidRequest
from nearline.store.open import open_files
from nearline.store.snapshot import Store
from nearline_cli.inputs.interaction_files import file_content, find_interaction_files
from retrieval.users.importer import Importer
from retrieval.users.imports import ImportedInteractions
from tests.nearline.store.conftest import s3 as s3, s3_endpoint as s3_endpoint

COLUMNS = ColumnNames("user", "item", "time")
TEXT = b"user,item,time\nu,i,1\nv,i,2\n"


def test_a_file_or_the_known_files_of_a_folder_are_found(tmp_path: Path) -> None:
    for name in ("b.csv", "a.NDJSON", "notes.txt"):
        (tmp_path / name).write_bytes(TEXT)
    (one,) = find_interaction_files(f"file://{tmp_path}/notes.txt")
    with one.local() as path:
        assert path.read_bytes() == TEXT
    found = find_interaction_files(str(tmp_path))
    assert [Path(one.name).name for one in found] == ["a.NDJSON", "b.csv"]
    empty = tmp_path / "empty"
    with pytest.raises(InvalidRequest, match=r"there is no .*empty"):
        find_interaction_files(str(empty))
    empty.mkdir()
    with pytest.raises(InvalidRequest, match=r"no file whose name ends in \.csv"):
        find_interaction_files(str(empty))


def test_objects_of_a_bucket_are_copied_for_as_long_as_they_are_read(s3: str) -> None:
    bucket = open_files(s3)
    for name in ("may.csv", "april.csv", "readme.md"):
        bucket.create(f"orders/{name}", name.encode() + TEXT)
    found = find_interaction_files(f"{s3}/orders")
    assert [one.name for one in found] == [f"{s3}/orders/april.csv", f"{s3}/orders/may.csv"]
    (one,) = find_interaction_files(f"{s3}/orders/may.csv")
    with one.local() as path:
        assert path.read_bytes() == b"may.csv" + TEXT
    assert not path.exists()
    with pytest.raises(InvalidRequest, match="no file whose name ends in"):
        find_interaction_files(f"{s3}/nothing/")


def test_content_and_columns_identify_an_import(tmp_path: Path) -> None:
    first, second, packed = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv.gz"))
    first.write_bytes(TEXT)
    second.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT))
    found = file_content(first, COLUMNS)
    assert found == file_content(second, COLUMNS)
    assert len(found.import_id) == 32 and found.rows == 2
    assert file_content(first, COLUMNS._replace(kind="kind")).import_id != found.import_id
    assert file_content(packed, COLUMNS).rows is None
    table = tmp_path / "d.parquet"
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "time": [1]}), table)
    assert file_content(table, COLUMNS).rows == 1


def test_an_import_into_a_bucket_resumes_too(s3: str) -> None:
    imported = ImportedInteractions(Store.open(s3), "shop")
    assert not imported.mark_deleted("ann", 1)
    for expected in (ImportReply(2, 2, 0), ImportReply(2, 0, 2)):
        importer = Importer(imported, "past", 0)
        importer.add(Rows(["ann", "bob"], ["a", "b"], [1, 2]))
        assert importer.finish() == expected
    assert imported.mark_deleted("ann", 1)
    assert (imported.count_rows(), imported.deleted(["ann", "bob"])) == (2, {"ann": 1})
