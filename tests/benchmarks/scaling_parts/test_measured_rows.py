"""Tests of the file of measured rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaling_parts.measured_rows import MeasuredRows
from nearline.errors import InvalidRequest
from tests.benchmarks.scaling_parts.made_up_rows import list_row, search_row


def test_rows_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = MeasuredRows(path)
    rows = [search_row(1_000, 1, 8), list_row(1_000, 2_000, 1, "cold")]
    for row in rows:
        first.add(row)
    again = MeasuredRows(path)
    assert again.rows == rows
    assert again.of_kind("lists") == rows[1:]
    assert again.has(search_row(1_000, 1, 8))
    assert not again.has(search_row(1_000, 1, 64))


def test_rows_without_a_file_are_kept_in_memory() -> None:
    rows = MeasuredRows(None)
    rows.add(search_row(1_000, 1, 8))
    assert rows.has(search_row(1_000, 1, 8))


@pytest.mark.parametrize("text", ["no JSON", '{"kind": "other"}', '{"kind": "searches"}', "[1]"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(InvalidRequest, match="name another file"):
        MeasuredRows(path)
