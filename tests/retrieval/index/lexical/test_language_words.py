"""Attributes in another language than the collection are searched by words of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.index.lexical.vocabulary import Vocabulary
from tests.retrieval.index.lexical.small_indexes import Built, Document

BRANDS = ("Apples", "The The", "Nike Running", "Metallica", "XR-200", "Häagen-Dazs", "Die Ärzte")
TEXTS = (
    "a phone",
    "an album",
    "the apples of a runner, running",
    "a metallic sound",
    *("a sofa", "a song", "ice"),
)


def index_of(
    folder: Path,
    language: str = "none",
    brands: Sequence[str] = BRANDS,
    texts: Sequence[str] = TEXTS,
    synonyms: Sequence[SynonymRule] = (),
) -> LexicalIndex:
    """Returns documents with a text and a brand each, whose language is not that of the text."""
    documents = [
        Document("", [text], {"brand": brand}) for brand, text in zip(brands, texts, strict=True)
    ]
    (index,) = Built(
        folder,
        documents,
        weights={"brand": 1.0},
        languages={"brand": language},
        synonyms=synonyms,
    ).indexes()
    return index


@pytest.fixture(scope="module", name="index")
def give_index(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    return index_of(tmp_path_factory.mktemp("brands"))


def test_a_stop_word_counts_for_the_brand_that_has_it_beside_other_words(
    tmp_path: Path,
) -> None:
    index = index_of(tmp_path, brands=["The The", "Matt", "Thee"], texts=["live", "live", "live"])
    scores = index.scores("the live", np.arange(3))
    assert scores[0] > scores[1] == scores[2] > 0
    # As a condition, it does not count, as elsewhere; alone, it does.
    rows = index.rows_with_words("the live", similar=False)
    assert [[one.tolist() for one in column] for column in rows] == [[[0, 1, 2], []]]
    (alone,) = index.rows_with_words("the", similar=False)
    assert sorted(np.concatenate(alone).tolist()) == [0]


def test_a_word_that_any_language_knows_is_not_misspelt(tmp_path: Path) -> None:
    for language, rows in (("none", [0]), ("english", [0])):
        (tmp_path / language).mkdir()
        index = index_of(
            tmp_path / language, language, brands=["metalica", "x"], texts=["y", "metallica"]
        )
        assert index.search("metalica", 9)[0].tolist() == rows
        # One that none knows stands for those of all.
        assert sorted(index.search("mettallica", 9)[0].tolist()) == [0, 1]
        assert index.correction("mettallica") == "metallica"
        assert index.correction("metalic") == ""


def test_the_best_language_counts_and_the_words_of_each_are_rare_by_themselves(
    tmp_path: Path,
) -> None:
    brands = ["apples", "x", "x", "x"]
    index = index_of(tmp_path, brands=brands, texts=["apples", "apples", "apples", "z"])
    both, text, *_ = index.scores("apples", np.arange(4)).tolist()
    # In one brand it is rarer than in three texts, and the sum is that of neither.
    assert both > text > 0
    alone = index.scores("z", np.arange(4))[3]
    assert both == pytest.approx(alone, rel=1e-6)


def files_of(folder: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_language_of_the_collection_changes_no_file(tmp_path: Path) -> None:
    documents = [Document("Die Ärzte", ["the band"], {"brand": brand}) for brand in BRANDS]
    found = []
    for number, languages in enumerate(({}, {"brand": "english"}, {"brand": "none"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        built = Built(folder, documents, 2, weights={"brand": 2.0}, languages=languages)
        assert built.card is not None and dict(built.card.languages) == languages
        found.append(files_of(built.folder))
    assert found[0] == found[1] != found[2]
    assert found[2].keys() - found[0].keys() == {
        "lexical/none/forms.arrow",
        "lexical/none/form_segments.npy",
    }


def test_any_number_of_shards_has_the_same_vocabulary(tmp_path: Path) -> None:
    documents = [
        Document(text, [text], {"brand": brand, "maker": [text, brand]})
        for brand, text in zip(BRANDS, TEXTS, strict=True)
    ]
    found = []
    for shards in (1, 5):
        folder = tmp_path / str(shards)
        folder.mkdir()
        built = Built(
            folder,
            documents,
            shards,
            weights={"brand": 2.0, "maker": 0.5},
            languages={"brand": "none", "maker": "german"},
        )
        found.append(files_of(built.folder / "lexical"))
    assert found[0] == found[1]


def test_a_vocabulary_restores_the_analysers_of_all_languages(tmp_path: Path) -> None:
    built = Built(
        tmp_path,
        [Document("", ["Hunde"], {"brand": "the cats", "note": "Die Hunde"})],
        language="german",
        weights={"brand": 1.0, "note": 1.0, "more": 1.0},
        languages={"brand": "none", "note": "german", "more": "english"},
    )
    vocabulary = Vocabulary.load(built.folder)
    assert list(vocabulary.other_analysers) == ["english", "none"]
    for language in ("german", "english", "none"):
        analyser = {"german": vocabulary.analyser, **vocabulary.other_analysers}[language]
        assert analyser.stop_words == analyser_of(language).stop_words
        assert analyser.words("Hunde cats the") == analyser_of(language).words("Hunde cats the")
    words = [vocabulary.word(number) for number in range(len(vocabulary))]
    assert words == ["\x1fnone\x1fcats", "\x1fnone\x1fthe", "hund"]
    assert vocabulary.chunks.tolist() == [1, 1, 1]


def _with_languages(folder: Path, found: object) -> None:
    """Replaces the metadata of other languages."""
    path = folder / "lexical" / "vocabulary.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    metadata = {**table.schema.metadata, b"other_languages": json.dumps(found).encode()}
    table = table.replace_schema_metadata(metadata)
    with path.open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("found", "error", "said"),
    [
        ([], SnapshotCorrupt, "not a readable vocabulary"),
        ({"none": []}, SnapshotCorrupt, "not a readable vocabulary"),
        ({"none": {"stop_words": 1, "stems": {}}}, SnapshotCorrupt, "not a readable vocabulary"),
        ({"none": {"stop_words": []}}, SnapshotCorrupt, "not a readable vocabulary"),
        ({"../x": {"stop_words": [], "stems": {}}}, SnapshotMismatch, r"language '\.\./x'"),
        (
            {"german": {"stop_words": [], "stems": {"hunde": "hunde"}}},
            SnapshotMismatch,
            "stems 'hunde' as 'hund'",
        ),
        ({"german": {"stop_words": [], "stems": {}}}, SnapshotCorrupt, "no readable word forms"),
    ],
)
def test_other_languages_that_are_not_valid_are_refused(
    tmp_path: Path, found: object, error: type[Exception], said: str
) -> None:
    built = Built(tmp_path, [Document("fig", ["plum"])])
    _with_languages(built.folder, found)
    with pytest.raises(error, match=f"{said}.*rebuild"):
        Vocabulary.load(built.folder)
