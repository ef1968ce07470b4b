"""Words of live documents score bit-identically to the snapshot; unknown words are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.lexical.bm25_index import K1, B
from retrieval.live.words import LiveWords
from tests.retrieval.live.base_shards import Base, base_of
from tests.retrieval.small_snapshots import Document

TEXTS = (
    "Apples and pears, apples again",
    "The plum's stone: a plum, 12 plums",
    "pear pear pear fig",
    "nothing of that kind",
    "fig",
)
QUERIES = ("apple", "fig pear", "pear fig pear", "stones plum 12", "kind nothing apple fig", "nix")


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
    rows = np.arange(items.chunks)
    documents = items.documents_of(rows)
    _, starts, ends = items.chunks_of(rows, documents)
    for row, (of, start, end) in enumerate(zip(documents.tolist(), starts, ends, strict=True)):
        words.add(row, f"{items.title(of)} {items.text(of)[start:end]}")
    return words


@pytest.mark.parametrize("query", QUERIES)
def test_live_copies_score_bit_identically_to_the_snapshot(base: Base, query: str) -> None:
    snapshot = base.part._words
    assert snapshot is not None
    rows = np.arange(base.part.items.chunks)
    live = copied(base).view(len(rows), names_of)
    scores = live.scores(query, rows)
    assert np.array_equal(scores, snapshot.scores(query, rows))
    assert (scores > 0).any() == (query != "nix")
    found, found_scores = live.search(query, 7)
    order = sorted(np.flatnonzero(scores).tolist(), key=lambda row: (-scores[row], -row))[:7]
    assert found.tolist() == order
    assert np.array_equal(found_scores, scores[order])
    assert live.terms(query) == snapshot.terms(query)


def test_an_unknown_word_is_found_and_has_the_largest_weight(base: Base, tmp_path: Path) -> None:
    assert base.vocabulary is not None
    card = base.manifest.lexical
    words = LiveWords(card, base.vocabulary)
    words.add(0, "Quince jelly and a quince")
    words.add(1, "pear")
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


def test_a_view_sees_the_rows_at_its_creation(base: Base) -> None:
    assert base.vocabulary is not None
    words = LiveWords(base.manifest.lexical, base.vocabulary)
    views = []
    for row in range(200):
        words.add(row, "pear" if row % 2 else "pear quince")
        views.append(words.view(row + 1, names_of))
    for row, view in enumerate(views):
        assert sorted(view.search("pear", 500)[0].tolist()) == [*range(row + 1)]
        assert len(view.search("quince", 500)[0]) == row // 2 + 1
        assert view.scores("quince", np.array([row])).tolist() == [
            0.0 if row % 2 else views[0].search("quince", 1)[1][0]
        ]
    allowed = np.zeros(200, np.bool_)
    allowed[[3, 8, 9]] = True
    assert sorted(views[-1].search("pear", 500, allowed)[0].tolist()) == [3, 8, 9]
    assert views[-1].search("quince", 500, allowed)[0].tolist() == [8]
