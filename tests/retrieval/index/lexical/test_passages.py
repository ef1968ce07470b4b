"""The best passage, against all passages of small texts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from retrieval.index.lexical.passages import best_passage
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.word_matcher import MatchedWord, WordMatcher

# Words of the query with their numbers and weights; one stands for two of them.
_WEIGHTS = {
    "fox": [(0, 900)],
    "dog": [(1, 500)],
    "dogg": [(1, 350)],
    "xr200": [(2, 800), (3, 40)],
    "200": [(3, 40)],
    "\u6771\u4eac": [(4, 700)],
}
_MATCHER = WordMatcher(Analyser("none"), _WEIGHTS)
_PIECES = [
    *("fox", "dog", "dogg", "XR-200", "200", "\u6771\u4eac", "\u6771", "lazy", "a", "one two"),
    *(" ", " ", " ", ". ", ".\n\n", "! ", " (", "-", "\U0001f600", "e\u0301", "wordswordswords"),
]
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)


def _value(words: Sequence[MatchedWord], start: int, end: int) -> tuple[int, int]:
    """Returns what a passage is worth: the weights of its distinct words, and their number."""
    inside = [word for word in words if start <= word.start and word.end <= end]
    weights: dict[int, int] = {}
    for word in inside:
        for number, weight in word.weights:
            weights[number] = max(weights.get(number, 0), weight)
    return sum(weights.values()), len(inside)


@given(text=_TEXTS, most=st.integers(1, 60))
def test_no_passage_is_better(text: str, most: int) -> None:
    words = _MATCHER.find(text)
    start, end = best_passage(text, words, most)
    assert 0 <= start <= end <= len(text) and end - start <= most
    assert text[start:end] == text[start:end].strip()
    assert end > start or not text.strip()
    # A passage of all places where one can begin, as long as it may be.
    all_values = [_value(words, at, at + most) for at in range(len(text))]
    best = max(all_values, default=(0, 0))
    assert _value(words, start, end) == best
    if best > (0, 0):
        first = min(
            word.start for word in words if _value(words, word.start, word.start + most) == best
        )
        assert start <= first < end
    else:
        assert not text[:start].strip()


@given(text=_TEXTS, most=st.integers(1, 60))
def test_words_are_cut_only_if_they_are_too_long(text: str, most: int) -> None:
    words = _MATCHER.find(text)
    start, end = best_passage(text, words, most)
    for place in (start, end):
        if 0 < place < len(text) and not (text[place - 1] + text[place]).strip() == "":
            cut = not text[place - 1].isspace() and not text[place].isspace()
            cjk = "\u6771" <= text[place] or text[place - 1] in "\u6771\u4eac"
            at_word = any(place in (word.start, word.end) for word in words)
            token = _token(text, place)
            assert not cut or cjk or at_word or token > most or text[place - 1] in ".!"


def _token(text: str, place: int) -> int:
    """Returns the length of the text without spaces around a place."""
    left = next((at for at in range(place, 0, -1) if text[at - 1].isspace()), 0)
    right = next((at for at in range(place, len(text)) if text[at].isspace()), len(text))
    return right - left


_STORY = (
    "A cat sat. The quick fox met a dog near the river. Nobody saw it. "
    "Then a hen came. It was late, and the night was long."
)


@pytest.mark.parametrize(
    ("most", "passage"),
    [
        (1_000, _STORY),
        # Both words are in one sentence, which fits with the one before, or with the one after.
        (65, "A cat sat. The quick fox met a dog near the river. Nobody saw it."),
        (54, "The quick fox met a dog near the river. Nobody saw it."),
        (53, "A cat sat. The quick fox met a dog near the river."),
        (40, "The quick fox met a dog near the river."),
        # The sentence does not fit: words around those of the query.
        (20, "fox met a dog near"),
        (13, "fox met a dog"),
        # Not both: the one with more weight.
        (9, "fox met a"),
        # No word fits.
        (2, "A"),
    ],
)
def test_a_passage_has_whole_sentences_where_they_fit(most: int, passage: str) -> None:
    start, end = best_passage(_STORY, _MATCHER.find(_STORY), most)
    assert _STORY[start:end] == passage


@pytest.mark.parametrize(
    ("text", "most", "passage"),
    [
        ("", 10, ""),
        (" \n ", 2, ""),
        ("  One sentence. Another.", 13, "One sentence."),
        ("  One sentence. Another.", 12, "One sentence"[:3]),
        ("  One sentence. Another.", 8, "One"),
        ("abcdefghij", 4, "abcd"),
        # Neither a letter and its accent nor an emoji of several parts is cut.
        ("abce\u0301fghij", 4, "abc"),
        ("ab\U0001f468\u200d\U0001f469\u200d\U0001f467cd", 4, "ab"),
        ("\u6771\u90fd\u4eac\u90fd", 3, "\u6771\u90fd\u4eac"),
    ],
)
def test_without_words_a_passage_begins_the_text(text: str, most: int, passage: str) -> None:
    start, end = best_passage(text, [], most)
    assert text[start:end] == passage


def test_a_megabyte_takes_time_for_its_words_alone() -> None:
    text = "fox dog lazy. " * 75_000
    words = [MatchedWord(at, at + 3, [(at % 997, at % 89)]) for at in range(0, len(text) - 3, 7)]
    start = time.process_time()
    first, last = best_passage(text, words, 2_000)
    assert time.process_time() - start < 3.0
    assert last - first <= 2_000
    start = time.process_time()
    best_passage("x" * 1_000_000, [], 2_000)
    assert time.process_time() - start < 0.1
