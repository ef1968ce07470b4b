"""Texts are normalized as Unicode says, and in time."""

from __future__ import annotations

import time
import unicodedata

from hypothesis import given, strategies as st

from nearline.normalization import MAX_MARKS, nfkc

_PIECES = st.sampled_from(
    ["a", "é", "e\u0301\u0327", "ﬁ", "각", "\u1112\u1161", "\u0301" * MAX_MARKS]
)


@given(st.lists(_PIECES | st.characters(), max_size=20).map("".join), st.sampled_from([0, 2_000]))
def test_texts_are_normalized_as_unicode_says(text: str, more: int) -> None:
    padded = text + "é" * more
    expected = unicodedata.normalize("NFKC", padded)
    found = nfkc(padded)
    if found != expected:
        # Two pieces of marks make a run that is too long.
        assert "\u0301" * (MAX_MARKS + 1) in unicodedata.normalize("NFD", padded)


@given(st.integers(0, 40), st.integers(0, 200), st.integers(1_100, 1_200))
def test_a_run_is_found_wherever_it_begins(marks: int, at: int, length: int) -> None:
    def text(marks: int) -> str:
        return "é" * at + "a" + "\u0301" * marks + "é" * length

    assert nfkc(text(marks)) == unicodedata.normalize("NFKC", text(min(marks, MAX_MARKS)))


def test_of_many_marks_on_one_letter_the_first_are_kept() -> None:
    many = "a" + "\u0327\u0301" * 600 + "b"
    assert nfkc(many) == unicodedata.normalize("NFKC", "a" + "\u0327\u0301" * 16 + "b")


def test_a_hostile_text_is_normalized_in_time() -> None:
    start = time.process_time()
    for marks in ("\u0301\u0327", "\u0301", "\u05b0\u0301\U0001e94a"):
        nfkc("a" + marks * (1_000_000 // len(marks)))
    assert time.process_time() - start < 1.0
