"""Tests the features, the shortlist and the ranking of sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from generation.evidence.calibration import DEFAULT_CALIBRATION
from generation.evidence.sentence_features import (
    FEATURES,
    POSITION,
    EvidenceDocument,
    QueryTerm,
    Sentence,
    add_cosines,
    add_judgements,
    compute_features,
    list_sentences,
    select_shortlist,
)

TERMS = (QueryTerm("cat", 3.0), QueryTerm("mat", 1.0))


def _words(text: str) -> list[str]:
    return text.lower().split()


def _document(title: str, score: float, *sentences: str) -> EvidenceDocument:
    spans, at = [], 0
    for sentence in sentences:
        spans.append((at, at + len(sentence)))
        at += len(sentence) + 1
    return EvidenceDocument(title, " ".join(sentences), score, spans)


TWO = (
    _document("a cat", 0.4, "the cat sat", "on a mat", "7 dogs 12 ran"),
    _document("", 0.8, "cat mat", "nothing"),
)
UNKNOWN = np.full(5, np.nan, np.float32)


def _column(name: str, described: NDArray[np.float64]) -> list[float]:
    column: list[float] = described[:, FEATURES.index(name)].tolist()
    return column


def _described(
    documents: tuple[EvidenceDocument, ...] = TWO,
    cosines: NDArray[np.float32] = UNKNOWN,
    query: str = "",
) -> NDArray[np.float64]:
    return compute_features(TERMS, documents, _words, cosines, query=query)


def test_rows_are_the_sentences_of_all_documents_in_order() -> None:
    assert list_sentences(TWO) == [
        Sentence(0, 0, 11),
        Sentence(0, 12, 20),
        Sentence(0, 21, 34),
        Sentence(1, 0, 7),
        Sentence(1, 8, 15),
    ]
    assert _described().shape == (5, len(FEATURES))


def test_coverage_is_the_share_of_idf_mass_in_a_sentence() -> None:
    described = _described()
    assert _column("coverage", described) == [0.75, 0.25, 0.0, 1.0, 0.0]
    assert _column("coverage_beyond_title", described) == [0.0, 0.25, 0.0, 1.0, 0.0]
    assert _column("title_coverage", described) == [0.75, 0.75, 0.75, 0.0, 0.0]


def test_a_sentence_is_compared_with_the_best_of_its_document() -> None:
    assert _column("coverage_to_best", _described()) == pytest.approx([1, 1 / 3, 0, 1, 0])


def test_rank_and_ratio_follow_the_score_not_the_input_order() -> None:
    described = _described()
    assert _column("document_rank", described) == pytest.approx([math.log(2)] * 3 + [0.0] * 2)
    assert _column("document_ratio", described) == [0.5, 0.5, 0.5, 1.0, 1.0]


def test_position_length_and_numbers_are_counted() -> None:
    described = _described()
    assert _column("position", described) == [0.0, 0.5, 1.0, 0.0, 1.0]
    assert _column("position_last", described) == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert _column("sentence_count", described) == pytest.approx(np.log([4, 4, 4, 3, 3]).tolist())
    assert _column("length", described) == pytest.approx(np.log([4, 4, 5, 3, 2]).tolist())
    assert _column("numbers", described) == pytest.approx([0.0, 0.0, math.log(3), 0.0, 0.0])


def test_grams_are_runs_of_five_characters_ignoring_case_and_spaces() -> None:
    one = _document("", 1.0, "abcdefg", "ABC  DEF", "bcdef")
    described = compute_features(TERMS, [one], _words, UNKNOWN[:3], query=" Abcdef ")
    assert _column("grams", described) == [1.0, 0.0, 0.5]
    spaced = compute_features(TERMS, [one], _words, UNKNOWN[:3], query="abc de")
    assert _column("grams", spaced) == [0.0, 1.0, 0.0]


def test_a_sentence_without_a_cosine_counts_as_the_least_of_those_with_one() -> None:
    known = np.array([0.5, np.nan, 0.1, 0.3, np.nan], np.float32)
    described = _described(cosines=known)
    assert _column("cosine", described) == pytest.approx([0.5, 0.1, 0.1, 0.3, 0.1])
    assert _column("cosine_standing", described) == pytest.approx(
        [math.sqrt(2), -math.sqrt(0.5), -math.sqrt(0.5), 1.0, -1.0]
    )


def test_without_any_cosine_the_rest_decides() -> None:
    described = _described()
    assert np.isnan(_column("cosine", described)).all()
    logits = DEFAULT_CALIBRATION.rank(described)
    assert logits.shape == (5,) and logits.dtype == np.float64 and np.isfinite(logits).all()
    for name, (_, mean, _) in DEFAULT_CALIBRATION.sentences.terms().items():
        if name.startswith("cosine"):
            described[:, FEATURES.index(name)] = mean
    assert np.allclose(DEFAULT_CALIBRATION.rank(described), logits)


def test_the_shortlist_is_the_best_rows_in_order_and_ties_take_the_first() -> None:
    scores = np.array([0.2, 3.0, 1.0, 3.0, 1.0])
    for most, wanted in [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3, 4])]:
        assert select_shortlist(scores, most, "abcde").tolist() == wanted
    # A text that occurs twice is read once.
    assert select_shortlist(scores, 3, "abcbe").tolist() == [1, 2, 4]


def test_cosines_added_later_are_those_of_features_computed_with_them() -> None:
    known = np.array([0.5, np.nan, 0.1, 0.3, np.nan], np.float32)
    described = _described(cosines=known)
    assert np.array_equal(add_cosines(_described(), TWO, known), described, equal_nan=True)
    assert np.isnan(_column("cosine", _described())).all()


def test_a_sentence_that_was_not_judged_counts_as_the_worst_that_was() -> None:
    assert np.isnan(_column("answer", _described())).all()
    judged = np.array([1.5, np.nan, -2.0, np.nan, 0.0], np.float32)
    added = add_judgements(_described(), judged)
    assert _column("answer", added) == [1.5, -2.0, -2.0, -2.0, 0.0]


def test_nothing_to_rank_is_an_empty_answer() -> None:
    empty = compute_features(TERMS, [], _words, UNKNOWN[:0])
    assert empty.shape == (0, len(FEATURES))
    assert DEFAULT_CALIBRATION.rank(empty).shape == (0,)
    assert select_shortlist(np.zeros(0), 3, []).dtype == np.int64
    without_terms = compute_features([], TWO, _words, UNKNOWN)
    assert _column("coverage", without_terms) == [0.0] * 5


def test_the_default_ranks_all_terms_above_none_and_ignores_position() -> None:
    one = _document("", 1.0, "dogs ran far", "cat mat here", "birds flew off")
    described = compute_features(TERMS, [one], _words, np.full(3, 0.3, np.float32), query="cat mat")
    assert DEFAULT_CALIBRATION.rank(described).argmax() == 1
    assert (
        DEFAULT_CALIBRATION.rank(compute_features(TERMS, [one], _words, UNKNOWN[:3])).argmax() == 1
    )
    assert not set(DEFAULT_CALIBRATION.sentences.names) & set(POSITION)
