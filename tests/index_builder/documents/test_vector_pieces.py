"""Pieces of vectors as files, and which texts they are of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.documents.vector_pieces import VectorPiece, digest_texts
from nearline.contract import Item

PIECE = VectorPiece(
    np.array([3, 4, 9]),
    np.array([7, 8, 1 << 31], np.uint32),
    np.arange(6, dtype=np.float32).reshape(3, 2),
    b"t" * 32,
)


def test_a_piece_is_read_as_it_was_written() -> None:
    found = VectorPiece.from_bytes(PIECE.to_bytes())
    assert found is not None
    for mine, theirs in zip(PIECE, found, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(deadline=None)
@given(st.data())
def test_anything_else_is_no_piece(data: st.DataObject) -> None:
    whole = PIECE.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert VectorPiece.from_bytes(whole[:cut]) is None
    assert VectorPiece.from_bytes(whole + b"x") is None
    assert VectorPiece.from_bytes(data.draw(st.binary(max_size=200))) is None


def test_rows_out_of_order_are_no_piece() -> None:
    wrong = PIECE._replace(rows=np.array([4, 3, 9]))
    assert VectorPiece.from_bytes(wrong.to_bytes()) is None
    wrong = PIECE._replace(rows=np.array([-1, 3, 9]))
    assert VectorPiece.from_bytes(wrong.to_bytes()) is None


def fill(folder: Path) -> Spool:
    """Returns a spool of ten documents of three chunks each: "0 0", "0 1", "0 2", "1 0", …"""
    made = Spool(folder, 2)
    made.begin()
    for number in range(10):
        text = f"{number} 0{number} 1{number} 2"
        spans = [(start, start + 3) for start in (0, 3, 6)]
        item = Item(id=f"d{number}", text=text)
        made.add(PreparedDocument(SourceLocation("file", number), item, spans))
    made.finish()
    return made


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = fill(tmp_path)
    yield made
    made.close()


@settings(deadline=None)
@given(rows=st.sets(st.integers(0, 29)))
def test_the_chunks_of_rows_are_found(
    rows: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = sorted(rows)
    made = fill(tmp_path_factory.mktemp("spool"))
    found = list(made.chunks_of(np.array(wanted, np.int64)))
    assert [(one.row, one.text) for one in found] == [(n, f"{n // 3} {n % 3}") for n in wanted]
    made.close()


def test_a_digest_depends_on_each_text_as_far_as_it_is_embedded(spool: Spool) -> None:
    rows = np.arange(3)
    whole = digest_texts(spool, rows, 100)
    assert digest_texts(spool, rows, 3) == whole
    assert digest_texts(spool, rows, 1) != whole
    assert digest_texts(spool, rows[:2], 100) != whole
    assert digest_texts(spool, rows + 3, 100) != whole
