"""Boundaries of sentences and chunks; no text is lost."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given, strategies as st

from nearline.contract import MAX_TEXT_BYTES
from nearline.items.chunking import chunk_spans
from nearline.sentences import estimate_tokens, sentences

_TEXTS = st.text(
    st.sampled_from(list("aBc1 .!?\n…。“”()é😀\u2028\u200b"))
    | st.characters(exclude_categories=["Cs"])
)


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def _chunks(text: str, max_tokens: int, overlap: int = 0) -> list[str]:
    return [text[start:end] for start, end in chunk_spans(text, max_tokens, overlap)]


def test_sentences_end_at_stops_and_empty_lines_and_not_at_abbreviations() -> None:
    text = "Dr. Smith paid 3.5 for it. See Fig. 2 (e.g. on p. 7)! “No way?” Yes…\n\nNew 文。次。"
    assert _sentences(text) == [
        "Dr. Smith paid 3.5 for it.",
        "See Fig. 2 (e.g. on p. 7)!",
        "“No way?”",
        "Yes…",
        "New 文。",
        "次。",
    ]


def test_chunks_hold_as_many_whole_sentences_as_fit() -> None:
    text = "One two. Three four. Five six."  # Three tokens each: two words and a stop.
    assert _chunks(text, 6) == ["One two. Three four.", "Five six."]
    assert _chunks(text, 9) == [text]


def test_overlap_repeats_sentences_where_they_fit() -> None:
    text = "It is. We go. He ran. They sat."
    assert _chunks(text, 6, 1) == ["It is. We go.", "We go. He ran.", "He ran. They sat."]
    assert _chunks(text, 3, 1) == ["It is.", "We go.", "He ran.", "They sat."]


def test_a_sentence_over_the_limit_is_cut_between_words() -> None:
    assert _chunks("aa bb cc dd ee.", 2) == ["aa bb", "cc dd", "ee."]


def test_a_word_over_the_limit_is_cut_between_characters() -> None:
    assert _chunks("x" * 14, 1) == ["x" * 6, "x" * 6, "xx"]
    assert _chunks("日本語", 2) == ["日本", "語"]


def test_a_limit_of_zero_keeps_the_text_whole_and_white_space_is_one_chunk() -> None:
    assert chunk_spans("A b. C d.", 0) == [(0, 9)]
    assert chunk_spans("  \n ", 5) == [(0, 4)]
    assert chunk_spans("", 5) == [(0, 0)]


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("hello", 1), ("hello, world", 3), ("12345", 2), ("naïve", 3)]
)
def test_tokens_are_pieces_of_words_digits_and_signs(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(_TEXTS, st.integers(1, 12), st.integers(0, 3))
def test_chunks_are_in_order_fit_and_cover_the_text(text: str, limit: int, overlap: int) -> None:
    spans = chunk_spans(text, limit, overlap)
    if not text.strip():
        assert spans == [(0, len(text))]
        return
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(spans))
    assert all(0 < estimate_tokens(text[start:end]) <= limit for start, end in spans)
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered or sign.isspace() for place, sign in enumerate(text))


@given(_TEXTS)
def test_sentences_cover_the_text_and_have_no_space_around_them(text: str) -> None:
    spans = sentences(text)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    left = list(text)
    for start, end in spans:
        left[start:end] = " " * (end - start)
    assert "".join(left).strip() == ""


def _longest_hold_s(text: str) -> float:
    """Returns the longest processor time for which no other thread could run during chunking."""
    held = [0.0]
    ended = threading.Event()

    def tick() -> None:
        last = time.process_time()
        while not ended.wait(0.0005):
            now = time.process_time()
            held.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    chunk_spans(text, 256, 1)
    ended.set()
    ticker.join()
    return max(held)


@pytest.mark.parametrize("unit", [".", "a.b ", " "])
def test_a_hostile_text_at_the_limit_does_not_hold_the_interpreter(unit: str) -> None:
    # Chunking runs in a thread, but a long call of a regular expression stops all others.
    text = "a" + unit * ((MAX_TEXT_BYTES - 2) // len(unit)) + "b"
    # Before it was bounded, seconds. It takes 0.02 to 0.06 s here, more beside neighbours.
    assert any(_longest_hold_s(text) < 0.15 for _ in range(3))
