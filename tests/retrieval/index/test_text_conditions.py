"""Conditions on titles and texts, compared with brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.errors import InvalidRequest
from nearline.filters import Phrase, Words
from retrieval.index import text_conditions
from retrieval.index.lexical.text_analysis import split_words
from retrieval.index.text_conditions import TextConditions, phrase_test
from tests.retrieval.segment_pairs import part_of
from tests.retrieval.small_snapshots import Document

# Parts of texts in which words begin and end in other ways than at spaces.
PARTS = st.sampled_from(
    ["new", "york", "York's", "ne", "w", "s", "'s", "'", " ", "-", "_", ". ", "XR", "200"]
) | st.sampled_from("éÉ\u0301東京\u00adß")
TEXTS = st.lists(PARTS, max_size=12).map("".join)


def has_words_in_sequence(phrase: list[str], text: list[str]) -> bool:
    return any(text[at : at + len(phrase)] == phrase for at in range(len(text)))


@given(TEXTS, TEXTS)
def test_a_phrase_is_in_a_text_that_has_its_words_in_sequence(phrase: str, text: str) -> None:
    words = split_words(phrase)
    found = phrase_test(phrase)
    if found is None:
        assert not words
    elif has_words_in_sequence(words, split_words(text)):
        assert found(text)
    elif not any(joint in phrase for joint in "-_.'"):
        assert not found(text)


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("New York", "in NEW-YORK, today", True),
        ("new york", "new. York's mayor", True),
        ("new york", "new yorker", False),
        ("new york", "york new", False),
        ("new york", "renew york", False),
        ("Björk Guðmundsdóttir", "BJORK GUDMUNDSDOTTIR sings", True),
        ("cafe", "the Café’s door", True),
        ("XR-200", "the xr200 amplifier", True),
        ("XR-200", "the xr 200", True),
        ("XR-200", "an xr 2000", False),
        ("東京", "東京都", True),
        ("東京", "東の京", False),
        ("s", "the dog's bone", False),
    ],
)
def test_a_phrase_is_compared_by_words(phrase: str, text: str, expected: bool) -> None:
    found = phrase_test(phrase)
    assert found is not None and found(text) is expected


def conditions_of(folder: Path, texts: list[str]) -> TextConditions:
    documents = [
        Document(
            id=f"d{number}",
            vectors=np.ones((1, 4), np.float32),
            title="",
            text=text,
            bounds=[(0, len(text))],
            attributes={},
        )
        for number, text in enumerate(texts)
    ]
    part = part_of(folder / "part", documents)
    return TextConditions(part.items, part._legs.needed_words())


def test_words_are_counted_by_documents(tmp_path: Path) -> None:
    texts = ["apple fig", "fig pear plum", "plum", "kiwi", "plum apple fig pear"]
    conditions = conditions_of(tmp_path, texts)
    for text, share, expected in (
        ("fig plum", 1.0, [1, 4]),
        ("fig, plum", 0.5, [0, 1, 2, 4]),
        # Two thirds of three are two.
        ("apple fig plum", 0.67, [0, 1, 4]),
        # Rounded down, but one at least.
        ("apple fig plum", 0.1, [0, 1, 2, 4]),
        ("fig fig fig", 1.0, [0, 1, 4]),
        ("nothing", 1.0, []),
        ("fig nothing", 0.5, [0, 1, 4]),
        ("!?", 0.5, []),
    ):
        found = conditions.matching(Words(text, share))
        assert np.flatnonzero(found).tolist() == expected, (text, share)
    found = conditions.matching(Phrase("fig pear"))
    assert np.flatnonzero(found).tolist() == [1, 4]
    assert not conditions.matching(Phrase("?!")).any()


def test_a_condition_that_would_cost_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = conditions_of(tmp_path, ["apple fig"] * 4)
    with pytest.raises(InvalidRequest, match="has 65 different words, 64 are allowed"):
        conditions.matching(Words(" ".join(f"w{n}" for n in range(65))))
    monkeypatch.setattr(text_conditions, "MAX_READ_DOCUMENTS", 3)
    with pytest.raises(InvalidRequest, match=r"'apple fig', .* together in 4 documents of a shard"):
        conditions.matching(Phrase("apple fig"))


def test_the_phrases_of_a_filter_share_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_conditions, "MAX_READ_CHARACTERS", 50)
    conditions = conditions_of(tmp_path, ["apple fig"] * 4)
    assert conditions.matching(Phrase("apple fig")).all()
    with pytest.raises(InvalidRequest, match=r"'fig apple', .* together in 54 characters and more"):
        conditions.matching(Phrase("fig apple"))
