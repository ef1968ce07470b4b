"""Rows in the journal are intact, whatever a kill left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.documents.vector_file import VectorFile
from nearline.errors import SnapshotMismatch


def _batch(
    first: int, rows: int, dim: int = 3
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return (np.arange(rows * dim, dtype=np.float32).reshape(rows, dim) + first * dim).astype("f4")


def _file(folder: Path) -> VectorFile:
    folder.mkdir(exist_ok=True)
    return VectorFile(folder)


def test_batches_written_in_any_order_are_read_by_row(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.write(np.arange(2, 5), _batch(2, 3), np.array([7, 8, 300]), np.array([False, False, True]))
    file.write(np.arange(2), _batch(0, 2), np.array([5, 6]), np.array([False, True]))
    file.close()
    again = _file(tmp_path)
    assert again.dim == 3
    assert again.written(6).tolist() == [True] * 5 + [False]
    assert np.array_equal(again.matrix(5), _batch(0, 5))
    tokens, truncated = again.lengths(5)
    assert tokens.tolist() == [5, 6, 7, 8, 300]
    assert truncated.tolist() == [False, True, False, False, True]
    again.close()


def test_another_dimension_is_refused_with_both_numbers(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.write(np.arange(2), _batch(0, 2))
    with pytest.raises(SnapshotMismatch, match=r"dim 4.*have 3"):
        file.write(np.arange(2, 4), _batch(2, 2, dim=4))
    file.close()


def test_corrupt_vectors_do_not_count_as_written(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.write(np.arange(2), _batch(0, 2))
    file.write(np.arange(2, 4), _batch(2, 2))
    file.close()
    data = bytearray((tmp_path / "vectors.f32").read_bytes())
    data[0] ^= 1
    (tmp_path / "vectors.f32").write_bytes(data)
    again = _file(tmp_path)
    assert again.written(4).tolist() == [False, False, True, True]
    again.close()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_a_torn_journal_keeps_every_whole_entry(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    file = _file(folder)
    ends = [0]
    journal = folder / "vectors.journal"
    first = 0
    for rows in sizes:
        file.write(np.arange(first, first + rows), _batch(first, rows))
        first += rows
        ends.append(journal.stat().st_size)
    file.close()
    cut = data.draw(st.integers(0, ends[-1]))
    torn = journal.read_bytes()[:cut] + data.draw(st.binary(max_size=3))
    journal.write_bytes(torn if cut < ends[-1] else torn[:cut])
    whole = sum(end <= cut for end in ends[1:])
    again = _file(folder)
    assert again.written(first).sum() == sum(sizes[:whole])
    rest = sum(sizes[:whole])
    again.write(np.arange(rest, rest + 2), _batch(rest, 2))
    again.close()
    last = _file(folder)
    assert last.written(rest + 2).all()
    assert np.array_equal(last.matrix(rest + 2), _batch(0, rest + 2))
    last.close()


def test_scattered_rows_are_written_at_their_positions(tmp_path: Path) -> None:
    rows = np.array([0, 1, 4, 6, 7], np.int64)
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    tokens = np.array([5, 6, 7, 8, 9])
    file = VectorFile(tmp_path)
    file.write(rows, vectors, tokens, np.array([True, False, False, True, False]), sync=False)
    file.sync()
    file.close()
    again = VectorFile(tmp_path)
    assert np.flatnonzero(again.written(8)).tolist() == rows.tolist()
    again.write(np.array([2, 3, 5]), np.zeros((3, 2), np.float32))
    assert again.written(8).all()
    assert np.array_equal(again.matrix(8)[rows], vectors)
    lengths, truncated = again.lengths(8)
    assert lengths.tolist() == [5, 6, 0, 0, 7, 0, 8, 9]
    assert np.flatnonzero(truncated).tolist() == [0, 6]
    again.close()
