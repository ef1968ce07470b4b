"""Synonyms of the words of a query: found by arithmetic, at most by SYNONYM_WEIGHT."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.index.lexical.bm25_index import K1, B, LexicalIndex
from retrieval.index.lexical.synonym_rules import SynonymRule, parse_synonyms
from retrieval.index.lexical.synonyms import SYNONYMS, VERSION, load_rules
from retrieval.index.lexical.vocabulary import FOLDER, Vocabulary
from tests.retrieval.index.lexical.lexical_texts import DOCUMENTS, QUERY_TEXTS, SYNONYMS as ANY
from tests.retrieval.index.lexical.small_indexes import Built, Document
from tests.scale import scaled

RULES = (
    "tv, television, telly",
    "nyc, big apple => new york city",
    "wi-fi, wlan",
    "jersey => sweater",
    "new jersey => garden state",
    "who => world health organization",
    "東京, tokyo",
)
TITLES = (
    *("TV", "Television", "Television Stand", "Tally", "New York City", "New York City Hall"),
    *("NYC", "York", "WiFi", "Wlan Router", "Sweater", "Garden State", "The Who", "Tokyo"),
    *("World Health Organization", "東京", "Big Apple Pie"),
)


def index_of(folder: Path, texts: Sequence[str], rules: Sequence[str]) -> LexicalIndex:
    documents = [Document("", [text]) for text in texts]
    (index,) = Built(folder, documents, synonyms=parse_synonyms(rules).rules).indexes()
    return index


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    """The titles, in this order, each with a text about something else."""
    documents = [Document(title, ["a text about cables"]) for title in TITLES]
    rules = parse_synonyms(RULES).rules
    (index,) = Built(tmp_path_factory.mktemp("synonyms"), documents, synonyms=rules).indexes()
    return index


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("tv", {"TV": 3, "Television": 1.5, "Television Stand": 0.5}),
        ("televisions stand", {"Television Stand": 2}),
        ("tv stand", {"Television Stand": 1.5}),
        # A word with synonyms is not misspelt, though nothing has it.
        ("telly", {"TV": 1.5, "Television": 1.5, "Television Stand": 0.5}),
        ("tella", {}),
        # All words of a synonym, for one word or for several.
        ("nyc", {"NYC": 3, "New York City": 1.5, "New York City Hall": 0.5}),
        ("big apple", {"Big Apple Pie": 1, "New York City": 1.5, "New York City Hall": 0.5}),
        ("nyc hall", {"New York City Hall": 1.5}),
        # One way.
        ("new york city", {"New York City": 3, "New York City Hall": 1}),
        # As entries are written, or together, or apart.
        *((query, {"WiFi": 3, "Wlan Router": 0.5}) for query in ("wi-fi", "wifi", "wi fi")),
        # The longest entry of several.
        ("jersey", {"Sweater": 1.5}),
        ("new jersey", {"Garden State": 1.5}),
        # A stop word is found only if it is all there is; synonyms of synonyms are not.
        ("who", {"The Who": 2, "World Health Organization": 1.5}),
        ("who tally", {"Tally": 2}),
        # The title has two words, each of one character, and the synonym is one of two.
        ("tokyo", {"Tokyo": 3, "東京": 0.5}),
        ("東京", {"東京": 3, "Tokyo": 1.5}),
    ],
)
def test_titles_are_found_by_synonyms_half_a_level_below_their_words(
    catalogue: LexicalIndex, query: str, wanted: dict[str, float]
) -> None:
    levels = catalogue.title_levels(query, np.arange(len(TITLES))).tolist()
    found = {title: level for title, level in zip(TITLES, levels, strict=True) if level}
    assert found == wanted
    rows, _ = catalogue.search(query, 100)
    best = [levels[row] for row in rows.tolist()]
    assert best == sorted(best, reverse=True)


def test_a_synonym_counts_at_most_as_much_as_the_words_it_stands_for(tmp_path: Path) -> None:
    # Chunks of six words, so that every word that occurs once has the score idf / (1 + K1).
    texts = [
        *("tv a1 b1 c1 d1 e1", "tv a2 b2 c2 d2 e2", "television a3 b3 c3 d3 e3"),
        *("nyc a4 b4 c4 d4 e4", "new york city c5 d5 e5", "new york city c6 d6 e6"),
        *("new york b7 c7 d7 e7", "big apple b8 c8 d8 e8", "apple a9 b9 c9 d9 e9"),
    ]
    index = index_of(tmp_path, texts, ["tv, television", "nyc, big apple, new york city"])

    def part(found_in: int) -> float:
        assert K1 * (1 - B + B) == K1
        return math.log(1 + (len(texts) - found_in + 0.5) / (found_in + 0.5)) / (1 + K1)

    def scores(query: str) -> list[float]:
        return [round(one, 5) for one in index.scores(query, np.arange(len(texts))).tolist()]

    def rounded(*wanted: float) -> list[float]:
        return [round(one, 5) for one in wanted]

    # Rarer than the word itself, and nevertheless below it.
    assert scores("tv")[:3] == rounded(part(2), part(2), 0.8 * part(2))
    assert scores("television")[:3] == rounded(0.8 * part(2), 0.8 * part(2), part(1))
    new, york, city, nyc = part(3), part(3), part(2), part(1)
    big, apple = part(1), part(2)
    assert scores("nyc")[3:] == rounded(
        nyc, *[0.8 * min(nyc, new + york + city)] * 2, 0, 0.8 * nyc, 0
    )
    # For several words: together at most what these are worth, divided in proportion.
    assert scores("new york city")[3:] == rounded(
        0.8 * nyc, *[new + york + city] * 2, new + york, 0.8 * (big + apple), 0
    )
    # Each word counts once more, and so does the synonym.
    assert scores("tv tv")[:3] == rounded(2 * part(2), 2 * part(2), 1.6 * part(2))


@settings(max_examples=scaled(30, nightly=300), deadline=None)
@given(DOCUMENTS, QUERY_TEXTS, ANY)
def test_a_synonym_takes_nothing_from_known_words(
    documents: list[Document], query: str, rules: list[SynonymRule]
) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        plain, more = Built(Path(one), documents), Built(Path(other), documents, synonyms=rules)
        if plain.card is None:
            return
        if any(clause.misspelt for clause in Vocabulary.load(plain.folder).query(query).clauses):
            return  # A word with synonyms is not misspelt.
        for name in ("scores", "levels", "search"):
            before, after = getattr(plain, name)(query), getattr(more, name)(query)
            assert all(after[key] >= value for key, value in before.items())


def test_long_queries_have_no_synonyms(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["television", "tv"], ["tv, television"])
    assert index.scores("tv " * 32, np.arange(2)).all()
    assert index.scores("tv " * 33, np.arange(2)).tolist()[0] == 0


def test_stored_rules_are_read_as_they_were_written(tmp_path: Path) -> None:
    rules = parse_synonyms(RULES).rules
    built = Built(tmp_path, [Document("", ["word"])], synonyms=rules)
    assert built.card is not None and built.card.synonym_rules == len(RULES)
    assert load_rules(built.folder / FOLDER) == rules
    (tmp_path / "plain").mkdir()
    plain = Built(tmp_path / "plain", [Document("", ["word"])])
    assert load_rules(plain.folder / FOLDER) == []
    assert not (plain.folder / FOLDER / SYNONYMS).exists()


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"version": VERSION + 1}, SnapshotMismatch, "has format 2; this nearline reads 1 at most"),
        ({"version": VERSION, "rules": []}, SnapshotCorrupt, "chunks.*rebuild the snapshot"),
        ({"version": 1, "chunks": 1, "rules": [[1]]}, SnapshotCorrupt, "rebuild the snapshot"),
        ([], SnapshotCorrupt, "rebuild the snapshot"),
    ],
)
def test_a_file_of_another_format_is_refused(
    tmp_path: Path, record: object, error: type[Exception], message: str
) -> None:
    built = Built(tmp_path, [Document("", ["word"])])
    (built.folder / FOLDER / SYNONYMS).write_text(json.dumps(record))
    with pytest.raises(error, match=message):
        Vocabulary.load(built.folder)
