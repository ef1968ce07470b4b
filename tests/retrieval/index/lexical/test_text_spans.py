"""Places of words in stored texts: each is where the text has that word, and none is missing."""

from __future__ import annotations

import re
import sys
import time
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, strategies as st

from retrieval.index.lexical.text_analysis import (
    VERSIONS,
    Analyser,
    fold,
    iter_compounds,
    normalize,
    split_words,
)
from retrieval.index.lexical.text_spans import PLAIN, folded_text, index_word_spans, word_spans

# What is folded, dropped, expanded, joined, or written without spaces.
_PIECES = [
    *("cat", "Cats", "xr", "200", "XR-200", "AT&T", "U.S.A.", "o'neill", "cat's", "dogs\u2019s"),
    *("Bj\u00f6rk", "Bjo\u0308rk", "\u00c6r\u00f8", "stra\u00dfe", "\u0130stanbul", "\u014bo"),
    *("soft\u00adhyphen", "\ufb01ne", "\u00bd", "\u2026", "\uff21\uff22\uff23", "na\u0131ve"),
    *("\u6771\u4eac\u90fd", "\u30d3\u30fb\u30c8", "\uff8a\uff9e\uff9d", "\u304b\u3099", "\u4e00"),
    *("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u064e\u0631\u0652"),
    *("\u0939\u093f\u0928\u094d\u0926\u0940", "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd", "\u1112"),
    *("\u1161\u11ab", "\uac00\u11a8", "\u03a3\u03a3", "\u0390", "e\u0301\u0327", "\u0301", "'s"),
    *(" ", "  ", "-", "'", "_", ".", "\n", "\u00a0", "\u3000", "\u200d", "a", "S"),
]
_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(f"[{_CJK}]{{2,}}")
_TEXTS = st.lists(st.sampled_from(_PIECES) | st.characters(), max_size=12).map("".join)


@pytest.mark.parametrize("version", VERSIONS)
@given(text=_TEXTS)
def test_words_are_those_by_which_a_text_is_found(version: int, text: str) -> None:
    # Version 1 does not fold the sigma that ends a word.
    found = Counter(word.replace("ς", "σ") for _, _, word in index_word_spans(text, version))
    words = Analyser("none", version=version).split(text)
    if version > 1:
        assert Counter(word for _, _, word in word_spans(text)) == Counter(words)
        words += [joined for _, joined in iter_compounds(text)]
        words += [a + b for run in _RUN.findall(folded_text(text).text) for a, b in pairwise(run)]
    assert found == Counter(word.replace("ς", "σ") for word in words)


@given(_TEXTS)
@example("cat's東京都")
@example("cat's'scat")
def test_a_word_is_in_its_place(text: str) -> None:
    for start, end, word in index_word_spans(text):
        assert 0 <= start < end <= len(text)
        # By itself, the part has the same letters in order, and possessives within a compound; a
        # fraction is one character of two numbers.
        letters = iter(letters_of(fold(normalize(text[start:end]))))
        assert all(one in letters for one in letters_of(word))


def letters_of(text: str) -> str:
    return "".join(filter(str.isalnum, text))


@given(_TEXTS)
def test_the_folded_text_is_that_of_the_analysis(text: str) -> None:
    folded = folded_text(text)
    assert len(folded.starts) == len(folded.ends) == len(folded.text)
    assert all(0 <= start < end <= len(text) for start, end in zip(*folded[1:], strict=True))
    assert list(folded.starts) == sorted(folded.starts)
    assert split_words(folded.text) == split_words(text)


def test_plain_characters_are_one_when_folded() -> None:
    plain = re.compile(f"[{PLAIN}]")
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if plain.match(character):
            assert len(fold(normalize(character))) == 1
            assert len(unicodedata.normalize("NFKC", character).lower()) == 1
            assert unicodedata.category(character)[0] != "M"


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("The cat's XR-200", [(0, 3, "the"), (4, 7, "cat"), (10, 12, "xr"), (13, 16, "200")]),
        ("Bjo\u0308rk \U0001f600 go", [(0, 6, "bjork"), (9, 11, "go")]),
        ("Bj\u00f6rk stra\u00dfe", [(0, 5, "bjork"), (6, 12, "strasse")]),
        ("soft\u00adhyphen", [(0, 11, "softhyphen")]),
        ("\u6771\u4eac", [(0, 1, "\u6771"), (1, 2, "\u4eac")]),
        ("\ufb01ne", [(0, 3, "fine")]),
    ],
)
def test_spans_are_code_points_of_the_stored_text(
    text: str, spans: list[tuple[int, int, str]]
) -> None:
    assert list(word_spans(text)) == spans


def test_compounds_and_pairs_span_their_parts() -> None:
    assert (0, 6, "xr200") in set(index_word_spans("XR-200"))
    pairs = {(0, 2, "\u6771\u4eac"), (1, 3, "\u4eac\u90fd")}
    assert pairs <= set(index_word_spans("\u6771\u4eac\u90fd"))


@pytest.mark.parametrize(
    "piece", ["a", "a\u0301", "\u0301\u0327", "\u6771", "x-", "'s ", "\u0939\u093f"]
)
def test_time_grows_with_the_length_of_a_text(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    assert sum(1 for _ in index_word_spans(text)) <= 2 * len(text)
    assert time.process_time() - start < 2.0
