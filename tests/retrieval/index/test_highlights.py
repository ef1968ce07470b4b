"""Highlights of single items: every word of the query is marked, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from nearline.contract import Highlights, Item
from retrieval.index.highlights import MAX_HIGHLIGHTED, highlight
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.synonym_rules import parse_synonyms
from retrieval.index.lexical.synonyms import SynonymTable
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.vocabulary import SCHEMA, Vocabulary
from retrieval.index.lexical.word_forms import WordForms, write_forms
from retrieval.index.lexical.word_matcher import WordMatcher

# Words of the snapshot as they are written, with the number of chunks that have them.
_FORMS = {"metallica": 3, "running": 40, "bjork": 2, "xr200": 1, "xr": 2, "200": 9, "cat": 30}
_CHUNKS = 100


@pytest.fixture(scope="session", name="vocabulary")
def give_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    analyser = analyser_of("english")
    counts: Mapping[str, int] = {analyser.stems([form])[0]: n for form, n in _FORMS.items()}
    words = sorted(counts)
    table = pa.table([words, [counts[word] for word in words]], schema=SCHEMA)
    folder = tmp_path_factory.mktemp("forms")
    forms = sorted(form for form in _FORMS if form.isalpha() and len(form) > 2)
    write_forms(folder, forms, [words.index(analyser.stems([form])[0]) for form in forms])
    return Vocabulary(table, analyser, WordForms.load(folder))


def matcher(vocabulary: Vocabulary, query: str) -> WordMatcher:
    return WordMatcher.of(vocabulary, vocabulary.query(query), _CHUNKS)


def marked(vocabulary: Vocabulary, query: str, text: str) -> list[str]:
    """Returns the marked parts of a text, which are the same in a title."""
    found = highlight(Item(id="a", title=text, text=text), matcher(vocabulary, query), 2_000)
    assert found.passage is not None
    assert found.passage.text == text[found.passage.start : found.passage.end]
    parts = [found.passage.text[start:end] for start, end in found.passage.spans]
    assert [text[start:end] for start, end in found.title] == parts
    return parts


@pytest.mark.parametrize(
    ("query", "text", "parts"),
    [
        ("cats", "A cat, the Cat's mat, CATS and concatenation", ["cat", "Cat", "CATS"]),
        ("the running cat", "He runs. The cat ran.", ["runs", "cat"]),
        ("bjork", "Bj\u00f6rk and Bjo\u0308rk, not Bj", ["Bj\u00f6rk", "Bjo\u0308rk"]),
        ("Bj\u00f6rk", "bjork", ["bjork"]),
        # Codes, whichever way they are written.
        ("XR-200", "the XR-200, xr200 or xr 200", ["XR-200", "xr200", "xr", "200"]),
        ("xr200", "the XR-200, xr200 or xr 200", ["XR-200", "xr200"]),
        ("xr 200", "the XR-200, xr200", ["XR-200", "xr200"]),
        # A misspelt word is corrected, as in the search.
        ("metalica", "Metallica is no metal", ["Metallica"]),
        (
            "\u6771\u4eac\u90fd",
            "\u6771\u4eac\u90fd \u6771\u4eac \u4eac \u6771\u90fd",
            ["\u6771\u4eac\u90fd", "\u6771\u4eac"],
        ),
        ("\u6771", "\u6771\u4eac", ["\u6771"]),
        ("cat", "\U0001f600\U0001f468\u200d\U0001f469 cat\U0001f600", ["cat"]),
        ("cat", "no such word", []),
        # Stop words count if there is nothing else.
        ("the who", "Who is in The Who?", ["Who", "The", "Who"]),
        ("the cat", "the cat", ["cat"]),
        ("\U0001f600", "a \U0001f600", []),
    ],
)
def test_words_are_marked_as_they_are_found(
    vocabulary: Vocabulary, query: str, text: str, parts: list[str]
) -> None:
    assert marked(vocabulary, query, text) == parts


@pytest.mark.parametrize(
    ("query", "text", "parts"),
    [
        ("kitty", "a Cat and a kitty", ["Cat", "kitty"]),
        ("nyc", "In the City of New York, not York", ["City", "New", "York", "York"]),
        # All words of a synonym stand for the query, one of them does not.
        ("nyc", "a new city", []),
        ("nyc city", "a new city", ["city"]),
        ("big apple", "New York City", ["New", "York", "City"]),
        ("new york city", "nyc", []),
    ],
)
def test_synonyms_are_marked_as_they_are_found(query: str, text: str, parts: list[str]) -> None:
    rules = parse_synonyms(["cat, kitty", "nyc, big apple => new york city"]).rules
    analyser = analyser_of("english")
    table = pa.table([["cat"], [30]], schema=SCHEMA)
    vocabulary = Vocabulary(table, analyser, synonyms=SynonymTable(rules, analyser, _CHUNKS))
    assert marked(vocabulary, query, text) == parts


_PIECES = [
    "cat",
    "Cats",
    "run",
    "xr",
    "200",
    "XR-200",
    "x",
    "\u6771\u4eac",
    "bjo\u0308rk",
    " ",
    ", ",
    "'s",
    "\u00ad",
]
_TEXTS = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=12).map("".join)


@given(query=_TEXTS, text=_TEXTS, most=st.integers(1, 40))
def test_spans_are_within_the_text_in_order_and_apart(
    vocabulary: Vocabulary, query: str, text: str, most: int
) -> None:
    item = Item(id="a", title=text, text=text)
    words = matcher(vocabulary, query)
    found = highlight(item, words, most)
    whole = highlight(item, words, 2_000)
    assert (found.passage is None) == (not text.strip())
    for spans, length in ((found.title, len(text)), *_of_passage(found), *_of_passage(whole)):
        places = [place for span in spans for place in span]
        assert places == sorted(places) and all(0 <= place <= length for place in places)
        assert all(start < end for start, end in spans)
    if found.passage is not None and whole.passage is not None:
        # A passage has the words of the text that are within it, and the title has all.
        at = found.passage.start
        moved = {(at + start, at + end) for start, end in found.passage.spans}
        everything = {
            (whole.passage.start + a, whole.passage.start + b) for a, b in whole.passage.spans
        }
        assert everything == set(found.title)
        within = {(a, b) for a, b in everything if at <= a and b <= found.passage.end}
        assert within <= moved
        assert all(any(a <= start and end <= b for a, b in everything) for start, end in moved)


def _of_passage(found: Highlights) -> list[tuple[Sequence[tuple[int, int]], int]]:
    passage = found.passage
    return [] if passage is None else [(passage.spans, len(passage.text))]


def test_a_query_without_words_has_the_passage_that_begins_the_text() -> None:
    item = Item(id="a", title="A title", text="  One sentence. Another one.")
    found = highlight(item, None, 20)
    assert found.title == () and found.passage is not None
    assert (found.passage.text, found.passage.start, found.passage.spans) == (
        "One sentence.",
        2,
        (),
    )
    assert highlight(Item(id="a", title="A title"), None, 20).passage is None


def test_a_long_query_and_a_long_text_take_bounded_time(vocabulary: Vocabulary) -> None:
    query = " ".join(f"word{number}" for number in range(10_000))
    words = matcher(vocabulary, query)
    text = "word1 word9999 wordless " * 45_000
    assert len(text) > 1_000_000
    start = time.process_time()
    found = highlight(Item(id="a", title=text, text=text), words, 240)
    assert time.process_time() - start < 3.0
    assert found.passage is not None and found.passage.start == 0
    assert all(text[a:b] in ("word1", "word9999") for a, b in found.title)
    assert found.title[-1][1] <= MAX_HIGHLIGHTED


def test_a_word_after_the_limit_is_not_looked_for() -> None:
    words = WordMatcher(Analyser("none"), {"cat": [(0, 1)]})
    text = " " * MAX_HIGHLIGHTED + "cat"
    assert highlight(Item(id="a", title=text), words, 10).title == ()
