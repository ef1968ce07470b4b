"""Words of live documents score bit-identically to the snapshot; unknown words are found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from numpy.typing import NDArray

from retrieval.index.lexical.bm25_index import K1, B
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.live.words import LiveWords, WordsView
from tests.retrieval.index.lexical.lexical_reference import Reference
from tests.retrieval.index.lexical.lexical_texts import (
    DOCUMENTS,
    LANGUAGES,
    QUERY_TEXTS,
    SYNONYMS,
    WEIGHTS,
)
from tests.retrieval.index.lexical.small_indexes import (
    Built,
    ChunkName,
    Document as SmallDocument,
    Found,
)
from tests.retrieval.live.base_shards import Base, base_of
from tests.retrieval.small_snapshots import Document
from tests.scale import scaled

TEXTS = (
    "Apples and pears, apples again",
    "The plum's stone: a plum, 12 plums",
    "pear pear pear fig",
    "nothing of that kind",
    "fig",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    rng = np.random.default_rng(3)
    documents = []
    for number in range(40):
        parts = [TEXTS[n] + ". " for n in rng.integers(0, len(TEXTS), 3)]
        ends = np.cumsum([len(part) for part in parts]).tolist()
        documents.append(
            Document(
                id=f"d{number:02}",
                vectors=np.ones((3, 4), np.float32),
                title=f"number {number}",
                text="".join(parts),
                bounds=list(zip([0, *ends], ends, strict=False)),
            )
        )
    return base_of(tmp_path_factory.mktemp("words"), documents)


def names_of(rows: NDArray[np.int64]) -> Sequence[str]:
    return [f"{999 - row:03}" for row in rows.tolist()]


def copied(base: Base) -> LiveWords:
    """Returns the chunks of a snapshot as if all had been written live."""
    assert base.vocabulary is not None
    words = LiveWords(base.manifest.lexical, base.vocabulary)
    items = base.part.items
    for document in range(items.documents):
        rows = items.rows_of(document)
        _, starts, ends = items.chunks_of(rows, np.full(len(rows), document))
        texts = [items.text(document)[at:end] for at, end in zip(starts, ends, strict=True)]
        words.add(int(rows[0]), items.title(document), {}, texts)
    return words


def test_an_unknown_word_is_found_and_has_the_largest_weight(base: Base, tmp_path: Path) -> None:
    assert base.vocabulary is not None
    card = base.manifest.lexical
    words = LiveWords(card, base.vocabulary)
    words.add(0, "", {}, ["Quince jelly and a quince"])
    words.add(1, "", {}, ["pear"])
    view = words.view(2, names_of)
    rows, scores = view.search("QUINCES pear", 5)
    idf = math.log(1 + (card.chunks + 0.5) / 0.5)
    norm = K1 * (1 - B + B * 3 / card.mean_length)
    assert rows.tolist() == [0, 1]
    assert scores[0] == pytest.approx(idf * 2 / (2 + norm))
    assert scores.tolist() == view.scores("QUINCES pear", np.arange(2)).tolist()
    assert dict(view.terms("quince"))["quinc"] == 0
    # Asked twice, it counts twice.
    assert view.search("quince quince", 1)[1][0] == np.float32(2) * scores[0]


def test_new_words_are_marked_where_a_misspelt_one_stands_for_them(base: Base) -> None:
    assert base.vocabulary is not None
    words = LiveWords(base.manifest.lexical, base.vocabulary)
    words.add(0, "", {}, ["Quince jelly"])
    text = "The quinces, and apples"
    marked = words.view(1, names_of).matcher("qiunce aples", 40).find(text)
    assert [text[one.start : one.end] for one in marked] == ["quinces", "apples"]
    # The word that is in fewer chunks counts more; both are misspelt.
    (_, quince), (_, apple) = marked[0].weights[0], marked[1].weights[0]
    assert quince > apple
    copy = copied(base).view(base.part.items.chunks, names_of)
    snapshot = base.part.matcher("stones plum 12", 40)
    assert snapshot is not None
    for text in TEXTS:
        assert copy.matcher("stones plum 12", 40).find(text) == snapshot.find(text)


def live_of(built: Built, documents: Sequence[SmallDocument]) -> tuple[WordsView, list[ChunkName]]:
    """Returns documents as if they had been written live, and the names of their rows."""
    assert built.card is not None
    words = LiveWords(built.card, Vocabulary.load(built.folder))
    names: list[ChunkName] = []
    for number, one in enumerate(documents):
        words.add(len(names), one.title, one.attributes, one.chunks, one.popularity)
        names += [(number, chunk) for chunk in range(len(one.chunks))]
    return words.view(len(names), names_of), names


def found_by(view: WordsView, names: Sequence[ChunkName], query: str) -> tuple[Found, Found, Found]:
    """Returns scores, levels and hits of a query."""
    rows = np.arange(len(names))
    scores, levels = view.scores(query, rows), view.title_levels(query, rows)
    found, totals = view.search(query, 1_000)
    return (
        {one: s for one, s in zip(names, scores.tolist(), strict=True) if s},
        {one: s for one, s in zip(names, levels.tolist(), strict=True) if s},
        {names[r]: s for r, s in zip(found.tolist(), totals.tolist(), strict=True)},
    )


def test_misspelt_words_complete_new_titles(tmp_path: Path) -> None:
    built = Built(tmp_path, [SmallDocument("Spider", ["x"])], 1, "none")
    view, _ = live_of(built, [SmallDocument(title, ["x"]) for title in ("Zorblax Quimby", "Spi")])
    for text in ("zorb", "zorblx", "zorblx qu", "zorblax quimbi", "zorblx quimby "):
        assert view.complete(text, 9).tolist() == [0], text
    for text in ("spi", "spidr", "zorblax spi"):
        assert 0 not in view.complete(text, 9).tolist(), text


@settings(max_examples=scaled(20, nightly=300), deadline=None)
@given(
    DOCUMENTS,
    DOCUMENTS,
    WEIGHTS,
    st.lists(QUERY_TEXTS, min_size=1, max_size=6),
    SYNONYMS,
    LANGUAGES,
)
@example(
    # One of its words is misspelt, so that the compound counts; once, as in the snapshot.
    [SmallDocument("spidermann", ["man king"]), SmallDocument("spider man", ["x"])],
    [SmallDocument("mettalica", ["spider-man"])],
    {},
    ["spider-man mann", "spider mann", "metalica", "mann"],
    [],
    {},
)
@example(
    # A synonym, and a word of one, that only live documents have.
    [SmallDocument("spiderman", ["x"])],
    [SmallDocument("xr200", ["pear"]), SmallDocument("metallica", ["king"])],
    {},
    ["spider man", "spider man pear"],
    [SynonymRule(1, ["spider-man"], ["xr200", "metallica king"])],
    {},
)
@example(
    # Words of an attribute that only live documents have, and one that only the snapshot has.
    [SmallDocument("x", ["king"], {"label": "the kings"})],
    [
        SmallDocument("kings", ["x"], {"label": "metallica the Who"}),
        SmallDocument("the", ["metallica"], {"label": "metalica"}),
    ],
    {"label": 1.5},
    ["the kings", "mettalica", "metallica", "the", "man Who"],
    [SynonymRule(1, ["the Who"], ["metallica king"])],
    {"label": "none"},
)
def test_live_documents_of_any_fields_are_found_as_the_contract_says(
    documents: list[SmallDocument],
    others: list[SmallDocument],
    weights: Mapping[str, float],
    queries: list[str],
    synonyms: list[SynonymRule],
    languages: Mapping[str, str],
) -> None:
    languages = {name: languages[name] for name in languages if name in weights}
    options: dict[str, Any] = {"weights": weights, "synonyms": synonyms, "languages": languages}
    with TemporaryDirectory() as folder:
        built = Built(Path(folder), documents, 1, popular=True, **options)
        if built.card is None:
            return
        copies, copied_names = live_of(built, documents)
        view, names = live_of(built, others)
        reference = Reference(others, base=documents, **options)
        for query in queries:
            # Bit by bit.
            assert found_by(copies, copied_names, query) == (
                built.scores(query),
                built.levels(query),
                built.search(query),
            )
            scores, levels, found = found_by(view, names, query)
            assert levels == reference.levels(query)
            assert scores == pytest.approx(reference.scores(query), rel=1e-5)
            assert found == pytest.approx(reference.search(query), rel=1e-5)
