"""Documents and vectors are accepted up to their limits, and refused beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nearline.contract import MAX_ID_BYTES, Item
from nearline.errors import InvalidRequest
from nearline.items.chunking import chunk_spans
from nearline.items.documents import (
    check_text_bytes,
    clean_document,
    clean_vector,
    document_spans,
    text_to_embed,
)
from nearline.sentences import estimate_tokens
from nearline.vectors import MAX_DIM

VECTOR = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("item", "title_only", "problem"),
    [
        (Item(id="a", text="A text"), False, ""),
        (Item(id="a", text="A text"), True, ""),
        (Item(id="a", vector=VECTOR), False, ""),
        (Item(id="a", title="A title"), False, "the text is empty"),
        (Item(id="a", title="A title", text=" \n"), False, "the text is empty"),
        (Item(id="a", title="A title"), True, ""),
        (Item(id="a", title=" "), True, "text and title are empty"),
        (Item(id="", text="A text"), False, "the id is empty"),
        (Item(id="é" * (MAX_ID_BYTES // 2), text="A text"), False, ""),
        (Item(id="é" * (MAX_ID_BYTES // 2) + "e", text="A text"), False, "bytes"),
        (Item(id="a", text="half \ud800"), False, "surrogate"),
        (Item(id="a", title="half \ud800", text="A text"), False, "surrogate"),
    ],
)
def test_a_document_needs_an_id_and_something_to_find_it_by(
    item: Item, title_only: bool, problem: str
) -> None:
    if not problem:
        assert clean_document(item, title_only=title_only).id == item.id
        return
    with pytest.raises(InvalidRequest, match=problem):
        clean_document(item, title_only=title_only)


def test_a_text_has_between_least_and_most_bytes() -> None:
    for text in ("é", "éé"):
        check_text_bytes(text, "field", most=4, least=2)
    for text in ("e", "ééé"):
        with pytest.raises(InvalidRequest, match=r"bytes; 2\.\.4 are allowed"):
            check_text_bytes(text, "field", most=4, least=2)


def test_a_vector_has_the_dimension_and_only_finite_numbers() -> None:
    assert clean_vector(VECTOR, 0, unit_length=False) is VECTOR
    assert clean_vector(np.ones(MAX_DIM, np.float32), 0, unit_length=False).size == MAX_DIM
    unit = clean_vector(np.array([3.0, 4.0], np.float32), 2, unit_length=True)
    assert np.abs(unit - np.array([0.6, 0.8], np.float32)).max() < 1e-7
    zeros = np.zeros(2, np.float32)
    assert clean_vector(zeros, 2, unit_length=False) is zeros
    for vector, dim, unit_length in (
        (np.ones(MAX_DIM + 1, np.float32), 0, False),
        (np.ones((1, 2), np.float32), 2, False),
        (np.ones(0, np.float32), 0, False),
        (VECTOR, 3, False),
        (np.array([1.0, math.nan], np.float32), 2, False),
        (zeros, 2, True),
    ):
        with pytest.raises(InvalidRequest):
            clean_vector(vector, dim, unit_length=unit_length)


def test_a_document_with_a_vector_is_one_chunk_and_others_are_cut() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(20))
    assert document_spans(Item(id="a", text=text), 0, 0) == [(0, len(text))]
    assert document_spans(Item(id="a", text=text, vector=VECTOR), 10, 0) == [(0, len(text))]
    spans = document_spans(Item(id="a", text=text), 20, 0)
    assert len(spans) > 1


@pytest.mark.parametrize(
    ("title", "max_tokens", "room"),
    [("Sky", 40, 40 - estimate_tokens("Sky")), ("word " * 40, 40, 20), ("word " * 40, 41, 21)],
)
def test_a_title_takes_at_most_half_of_the_room_of_a_text(
    title: str, max_tokens: int, room: int
) -> None:
    text = "Go up. " * 100
    spans = document_spans(Item(id="a", title=title, text=text), max_tokens, 0)
    assert spans == chunk_spans(text, room, 0)
    assert spans not in (chunk_spans(text, room - 3, 0), chunk_spans(text, room + 3, 0))


def test_a_title_is_embedded_once() -> None:
    assert text_to_embed("Sky", "Red clouds") == "Sky Red clouds"
    assert text_to_embed("Sky", "Sky and clouds") == "Sky and clouds"
