"""Tests of an index of files: it is built again only if the files changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import DEFAULT_COLLECTION
from nearline.store.snapshot import Store
from nearline_cli.compose.local_index import ensure_snapshot
from tests.index_builder.embedders import HashEmbedder


async def test_a_folder_is_indexed_again_only_once_a_file_or_the_model_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, store = tmp_path / "docs", Store.open(str(tmp_path / "store"))
    folder.mkdir()
    (folder / "a.md").write_text("Parcels leave the house on the day of the order.")
    (folder / "broken.pdf").write_bytes(b"no pdf")
    (folder / "prices.csv").write_text("article,price\nlamp,3\n")
    reported: list[str] = []

    async def index(embedder: HashEmbedder) -> tuple[str, str]:
        files = Corpus([folder], DocumentColumns(), leave_out_tables=True)
        result = await ensure_snapshot(
            store, files, embedder, max_bad_rows=10, as_json=True, reported=reported
        )
        reported.extend(result.bad_row_sample if result else ())
        return store.alias_in_force(DEFAULT_COLLECTION).current, capsys.readouterr().err

    first, said = await index(HashEmbedder())
    assert "1 document of 3 files in 1 shard" in said
    assert "left out 2 files or rows that cannot be read" in said
    assert "broken.pdf" in said and "prices.csv has no column _id or id" in said
    again, said = await index(HashEmbedder())
    assert again == first and "reusing snapshot" in said
    (folder / "b.txt").write_text("Gift cards are valid for three years.")
    (folder / "worse.pdf").write_bytes(b"no pdf either")
    second, said = await index(HashEmbedder())
    assert second != first
    assert "left out 3 files" in said and "worse.pdf" in said and "broken.pdf" not in said
    other, _ = await index(HashEmbedder(fingerprint="another"))
    assert other != second
