"""Names are found as people write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.contract import MAX_QUERY_CHARACTERS
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.language_words import MAX_STARTING
from tests.retrieval.index.lexical.small_indexes import Built, Document

TITLES = (
    *("The The", "The Who", "Who Are You", "The Who Sell Out", "Sell Out"),
    *("Björk", "Bjork", "Björk Live", "XR-200", "xr200", "XR-200 Charger", "xr200 charger"),
    *("Spider-Man", "Spiderman", "Spider Man Returns", "Man", "Metallica", "Metallica Live"),
    *(
        "The Cat's Meow",
        "ハリー・ポッターと賢者の石",
        "東京タワー",
        "Rock & Roll",
        "AT&T",
        "U.S.A.",
    ),
    *("Romeo and Juliet", "東京", "Häagen-Dazs", "Beyoncé"),
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    """The titles, in this order, each with a text about something else."""
    documents = [Document(title, ["a text about cables and music"]) for title in TITLES]
    (index,) = Built(tmp_path_factory.mktemp("catalogue"), documents).indexes()
    return index


def found(index: LexicalIndex, query: str) -> list[tuple[str, float]]:
    """Returns titles and levels, best first."""
    rows, _ = index.search(query, 100)
    levels = index.title_levels(query, rows).tolist()
    return [(TITLES[row], level) for row, level in zip(rows.tolist(), levels, strict=True)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        # Stop words find titles if there is nothing else to ask for.
        ("the the", [("The The", 3)]),
        ("The Who", [("The Who", 3)]),
        ("who are you", [("Who Are You", 3)]),
        ("who sell out", [("Sell Out", 2), ("The Who Sell Out", 2)]),
        ("the who sell out", [("The Who Sell Out", 3), ("Sell Out", 2)]),
        # With accents, those titles first; without, all are alike.
        ("Björk", [("Björk", 3.25), ("Bjork", 3), ("Björk Live", 1)]),
        ("bjork", [("Bjork", 3), ("Björk", 3), ("Björk Live", 1)]),
        ("bjork live", [("Björk Live", 3)]),
        ("beyonce", [("Beyoncé", 3)]),
        ("haagen dazs", [("Häagen-Dazs", 3)]),
        ("haagendazs", [("Häagen-Dazs", 3)]),
        # Compounds and their parts, both ways.
        *(
            (query, [("XR-200", 3), ("xr200", 3)])
            for query in ("XR-200", "xr 200", "xr200", "Xr_200", "xr-200!")
        ),
        ("xr-200 charger", [("XR-200 Charger", 3), ("xr200 charger", 3)]),
        ("charger xr 200", [("XR-200 Charger", 2), ("xr200 charger", 2)]),
        *(
            (query, [("Spider-Man", 3), ("Spiderman", 3)])
            for query in ("spider man", "spider-man", "spiderman")
        ),
        ("at&t", [("AT&T", 3)]),
        ("usa", [("U.S.A.", 3)]),
        ("rock and roll", [("Rock & Roll", 2)]),
        ("juliet & romeo", [("Romeo and Juliet", 2)]),
        ("cats meow", [("The Cat's Meow", 2)]),
        ("the cat's meows", [("The Cat's Meow", 2)]),
        # Misspelt: half a level less.
        ("metalica", [("Metallica", 1.5), ("Metallica Live", 0.5)]),
        ("etmallica", [("Metallica", 1.5), ("Metallica Live", 0.5)]),
        ("metalica live", [("Metallica Live", 1.5)]),
        # The same word in two spellings is one word of a title.
        ("metalica metallica", [("Metallica", 1.5), ("Metallica Live", 0.5)]),
        ("beyonec", [("Beyoncé", 1.5)]),
        ("東京タワー", [("東京タワー", 3)]),
        ("東京", [("東京", 3), ("東京タワー", 1)]),
        ("ハリーポッターと賢者の石", [("ハリー・ポッターと賢者の石", 3)]),
        ("ハリー・ポッター", [("ハリー・ポッターと賢者の石", 1)]),
        ("ハリー ポッター", [("ハリー・ポッターと賢者の石", 1)]),
        ("都", []),
        ("unknown", []),
    ],
)
def test_titles_are_found_as_people_write_them(
    catalogue: LexicalIndex, query: str, wanted: Sequence[tuple[str, float]]
) -> None:
    best = [(title, level) for title, level in found(catalogue, query) if level > 0]
    levels = [level for _, level in best]
    assert levels == sorted(levels, reverse=True)
    # In any order within a level; after an exact title, some are left out here.
    best.sort(key=lambda one: (-one[1], one[0]))
    exact = bool(wanted) and wanted[-1][1] >= 3
    assert (best[: len(wanted)] if exact else best) == list(wanted)


def test_a_compound_that_counts_for_no_score_leaves_nothing_behind(tmp_path: Path) -> None:
    titles = ("Spiderman", "", "")
    texts = ("a film", "a spider", "a man")
    (index,) = Built(
        tmp_path, [Document(title, [text]) for title, text in zip(titles, texts, strict=True)]
    ).indexes()
    before = [part.tolist() for part in index.search("film", 9)]
    rows, scores = index.search("spider man", 9)
    assert rows.tolist() == [0, 1, 2]
    assert index.scores("spider man", rows)[0] == 0
    assert scores[0] == 32 * 2 * 3
    assert index.search("spider man", 1)[0].tolist() == [0]
    allowed = np.array([False, True, True])
    assert index.search("spider man", 9, allowed)[0].tolist() == [1, 2]
    assert [part.tolist() for part in index.search("film", 9)] == before


def test_misspelt_words_count_less_and_only_where_nothing_is_spelt_so(tmp_path: Path) -> None:
    (index,) = Built(
        tmp_path,
        [Document("", [text]) for text in ("quinces", "quincas", "three kings", "metallica")],
        1,
        "none",
    ).indexes()
    one = index.scores("quinces", np.arange(2))[0]
    assert index.scores("quinces", np.arange(2)).tolist() == [one, 0]
    assert index.scores("quinches", np.arange(2)).tolist() == [
        one * np.float32(0.7),
        one * np.float32(0.4),
    ]
    # Words of three letters, of digits, and one of many are taken as they are.
    assert not any(index.scores(word, np.arange(4)).any() for word in ("kin", "xquinc", "q1inces"))
    assert index.scores("quinches " * 10, np.arange(2)).all()
    assert not index.scores("quinches " * 11, np.arange(2)).any()


def test_a_last_word_with_a_star_stands_for_those_that_begin_with_it(tmp_path: Path) -> None:
    texts = ("metal", "metallica", "metallic fig", "mettle", "the metal", "india")
    (index,) = Built(tmp_path, [Document("", [text]) for text in texts], 1, "none").indexes()
    rows = np.arange(len(texts))
    whole = {word: index.scores(word, rows) for word in ("metal", "metallica", "metallic")}
    share = np.float32(0.9)
    more = np.maximum(whole["metallica"], whole["metallic"]) * share
    expected = np.maximum(whole["metal"], more)
    assert index.scores("metal*", rows).tolist() == expected.tolist()
    # If no word begins with it, it is taken for misspelt; elsewhere, a star means nothing.
    assert index.scores("metalica*", rows).tolist() == index.scores("metalica", rows).tolist() != []
    assert index.scores("metal* fig", rows).tolist() == index.scores("metal fig", rows).tolist()
    assert index.scores("metal *", rows).tolist() == whole["metal"].tolist()
    # The beginning of a word may be a stop word.
    assert index.search("in*", 9)[0].tolist() == [5]
    assert index.search("*", 9)[0].tolist() == []


def test_the_most_frequent_words_stand_for_a_beginning(tmp_path: Path) -> None:
    texts = [f"w{number}" for number in range(100)] + ["w99"]
    (index,) = Built(tmp_path, [Document("", [text]) for text in texts], 1, "none").indexes()
    found, _ = index.search("w*", 200)
    assert len(found) == MAX_STARTING + 1
    assert {99, 100} <= set(found.tolist())


def test_stop_words_are_not_misspelt(tmp_path: Path) -> None:
    (index,) = Built(tmp_path, [Document("three kings", ["theer"])]).indexes()
    assert index.search("there", 5)[0].tolist() == []


def test_long_queries_are_no_titles(tmp_path: Path) -> None:
    title = " ".join(f"word{number}" for number in range(17))
    (index,) = Built(tmp_path, [Document(title, ["text"])]).indexes()
    rows = np.arange(1)
    assert index.title_levels(title, rows).tolist() == [0]
    assert index.title_levels(title.removesuffix("word16"), rows).tolist() == [1]
    assert index.title_levels(title.removesuffix("word16") * 9, rows).tolist() == [1]


def test_two_forms_of_a_word_are_one_word_of_a_title(tmp_path: Path) -> None:
    documents = [Document("cat", ["x"]), Document("cat dog", ["x"])]
    (index,) = Built(tmp_path, documents).indexes()
    assert index.title_levels("cat cats", np.arange(2)).tolist() == [2, 1]


def _long_queries() -> Iterator[str]:
    many = " ".join(f"w{number}" for number in range(10_000))[:MAX_QUERY_CHARACTERS]
    yield from (many, "metallica " * 3_000, "a b c d " * 4_000, "xr-200 " * 4_000)
    yield from (" ".join(f"a-b{n}" for n in range(4_500)), "a" * 32_768, "a" * 32_767 + "!")
    yield from ("東京 " * 10_000, "東京タワー" * 6_000, "é " * 16_000, "का " * 10_000)


@pytest.mark.parametrize(
    "query",
    [
        *("", " ", "x", "the", "the of and", '"unclosed', '"a "b', "'", "'s", "…", "-", "-a", "a-"),
        *("\u0301", "\u00ad", "\u200d", "・", "😀", "\ufeff", "\x00", "ſ", "ß", "١٢", "\U0010ffff"),
        *_long_queries(),
    ],
    ids=lambda query: ascii(query[:12]),
)
@pytest.mark.timeout(30)
def test_any_query_is_answered(catalogue: LexicalIndex, query: str) -> None:
    rows, scores = catalogue.search(query, 100)
    assert (scores > 0).all() and len(set(rows.tolist())) == len(rows)
    every = catalogue.scores(query, np.arange(len(TITLES)))
    levels = catalogue.title_levels(query, np.arange(len(TITLES)))
    assert sorted(rows.tolist()) == np.flatnonzero((every > 0) | (levels > 0)).tolist()
    catalogue.terms(query)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.text(max_size=12))
def test_each_document_is_found_by_its_title(titles: list[str], text: str) -> None:
    """Whatever the script, if the title is nothing that was dropped."""
    with TemporaryDirectory() as folder:
        built = Built(Path(folder), [Document(title, [text]) for title in titles])
        if built.card is None:
            return
        (index,) = built.indexes()
        for number, title in enumerate(titles):
            row = built.names[0].index((number, 0))
            if index._vocabulary.analyser.split(title):
                assert index.title_levels(title, np.array([row]))[0] >= 3
                assert row in index.search(title, 100)[0]
