"""Tests the signals by arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from generation.evidence.confidence import SIGNALS, compute_signals
from generation.evidence.sentence_features import EvidenceDocument, QueryTerm
from nearline.contract import Explanation, Hit

TERMS = (QueryTerm("cat", 3.0), QueryTerm("mat", 1.0))


def _words(text: str) -> list[str]:
    return text.lower().split()


def _hit(name: str, score: float, dense: float, lexical: float) -> Hit:
    return Hit(
        id=name,
        score=score,
        explanation=Explanation(dense_score=dense, lexical_score=lexical, shard=0),
    )


HITS = [
    _hit("a", 0.9, 0.8, 2.0),
    _hit("a", 0.8, 0.6, 3.0),
    _hit("b", 0.7, 0.5, 1.0),
    _hit("c", 0.2, 0.1, 0.0),
]
DOCUMENTS = [
    EvidenceDocument("a mat", "the dog sat on it", 0.9, [(0, 11), (12, 17)]),
    EvidenceDocument("", "cat here", 0.7, [(0, 8)]),
]
COSINES = np.array([0.3, np.nan, 0.7], np.float32)


def _found() -> dict[str, float]:
    return compute_signals("cat mat", TERMS, HITS, DOCUMENTS, _words, COSINES)


def test_gaps_are_between_documents_by_their_best_chunks() -> None:
    found = _found()
    assert set(found) == set(SIGNALS)
    assert found["dense_best"] == 0.8
    assert found["dense_mean"] == pytest.approx((0.8 + 0.6 + 0.5 + 0.1) / 4)
    assert found["dense_gap_2"] == pytest.approx(0.8 - 0.5)
    assert found["dense_top"] == found["dense_mean"]
    six = [*HITS, _hit("d", 0.1, 0.0, 0.0), _hit("e", 0.1, -0.9, 0.0)]
    best = compute_signals("cat mat", TERMS, six, DOCUMENTS, _words, COSINES)
    assert best["dense_top"] == pytest.approx((0.8 + 0.6 + 0.5 + 0.1 + 0.0) / 5)
    # There are three documents, so the last is used as the fifth.
    assert found["dense_gap_5"] == pytest.approx(0.8 - 0.1)
    assert found["lexical_best"] == 3.0 / 4.0
    assert found["lexical_gap"] == pytest.approx((3.0 - 1.0) / 4.0)
    assert found["score_gap"] == pytest.approx(0.9 - 0.7)


def test_coverage_is_the_share_of_idf_in_a_document_or_a_sentence() -> None:
    found = _found()
    assert (found["coverage_first"], found["coverage_best"]) == (0.25, 0.75)
    assert found["sentence_coverage"] == 0.75
    assert found["missing_heaviest"] == 0.75
    # Together, the documents hold both terms.
    assert found["heaviest_held"] == 1.0
    five = [QueryTerm(word, idf) for idf, word in enumerate("mat owl elk cat ant".split(), 1)]
    held = compute_signals("?", five, HITS, DOCUMENTS, _words, COSINES)["heaviest_held"]
    # "mat" is the lightest of the five; of the other four, the documents hold "cat".
    assert held == 0.25
    # "cat mat" has the runs "cat m", "at ma", "t mat".
    mat = EvidenceDocument("", "a cat mat", 1.0, [(0, 9)])
    assert found["grams_best"] == 0.0
    assert compute_signals("cat mat", TERMS, HITS, [mat], _words, COSINES[:1])["grams_best"] == 1.0
    assert found["words"] == math.log1p(2)


def test_the_best_sentences_are_those_with_a_cosine() -> None:
    found = _found()
    assert found["sentence_cosine"] == pytest.approx(0.7)
    assert found["sentence_cosine_2"] == pytest.approx(0.3)
    unknown = np.full(3, np.nan, np.float32)
    without = compute_signals("cat mat", TERMS, HITS, DOCUMENTS, _words, unknown)
    assert without["sentence_cosine"] == without["sentence_cosine_2"] == 0.8


def test_one_document_has_no_gap_and_no_terms_no_coverage() -> None:
    one = compute_signals("cat mat", TERMS, HITS[:2], DOCUMENTS[:1], _words, COSINES[:2])
    assert one["dense_gap_2"] == one["lexical_gap"] == one["score_gap"] == 0.0
    bare = compute_signals("", (), HITS, DOCUMENTS, _words, COSINES)
    assert bare["coverage_first"] == bare["missing_heaviest"] == bare["words"] == 0.0
    unjudged = {name for name, value in bare.items() if not math.isfinite(value)}
    judge = {name for name in SIGNALS if name.startswith("answer_")}
    assert unjudged == {*judge, "names_missing", "identifiers_missing"}


def test_the_best_judged_sentences_are_signals() -> None:
    def best(*judged: float) -> tuple[float, float]:
        logits = np.array(judged, np.float32)
        found = compute_signals("cat", TERMS, HITS, DOCUMENTS, _words, COSINES, logits)
        return found["answer_best"], found["answer_second"]

    assert best(-3.0, 2.0, math.nan) == (2.0, -3.0)
    assert best(math.nan, 0.5, math.nan) == (0.5, 0.5)


def test_the_best_judged_sentence_is_checked_for_the_names_asked_for() -> None:
    documents = [
        EvidenceDocument("Boat", "It cost 40 euros. Anna sold it.", 0.9, [(0, 17), (18, 31)]),
        EvidenceDocument("Car", "It rusted.", 0.7, [(0, 10)]),
    ]
    terms = (QueryTerm("boat", 3.0), QueryTerm("cost", 1.0))

    def best(question: str, *judged: float) -> tuple[float, float]:
        found = compute_signals(
            question, terms, HITS, documents, _words, COSINES, np.array(judged, np.float32)
        )
        return found["answer_coverage"], found["names_missing"]

    asked = "How much did the boat of Anna cost in 1936?"
    # The title counts; Anna is in the second sentence, and 1936 is nowhere.
    assert best(asked, 2.0, -1.0, math.nan) == (1.0, 1.0)
    assert best(asked, -2.0, 1.0, math.nan) == (0.75, 0.5)
    assert best(asked, -2.0, math.nan, 1.0) == (0.0, 1.0)


def test_signals_without_a_source_are_0() -> None:
    # Shards that cannot explain, and a search that only one of the two indexes answered.
    bare = [Hit(id="a", score=0.9), Hit(id="b", score=0.2)]
    found = compute_signals("cat mat", TERMS, bare, DOCUMENTS, _words, COSINES)
    sources = ("dense_best", "dense_mean", "dense_gap_2", "lexical_best", "lexical_gap")
    assert {found[name] for name in sources} == {0.0}
    assert found["score_gap"] == pytest.approx(0.7)
    lexical = Explanation(dense_score=None, lexical_score=2.0, shard=0)
    hits = [Hit(id="a", score=0.9, explanation=lexical), HITS[2]]
    found = compute_signals("cat mat", TERMS, hits, [], _words, COSINES[:0])
    assert (found["dense_best"], found["dense_mean"]) == (0.5, 0.25)
    assert (found["lexical_best"], found["lexical_gap"]) == (2.0 / 4.0, 1.0 / 4.0)
    assert found["coverage_first"] == found["sentence_coverage"] == found["grams_best"] == 0.0
    assert found["missing_heaviest"] == 1.0


def test_cosines_are_unknown_if_the_search_was_by_words_alone() -> None:
    hits = [
        Hit(
            id=one.id,
            score=2.0,
            explanation=Explanation(dense_score=None, lexical_score=2.0, shard=0),
        )
        for one in HITS
    ]
    found = compute_signals(
        "cat mat", TERMS, hits, DOCUMENTS, _words, np.full(3, np.nan, np.float32)
    )
    unknown = {name for name in SIGNALS if name.startswith(("dense", "sentence_cosine"))}
    assert {name for name, value in found.items() if math.isnan(value)} >= unknown
    assert found["lexical_best"] == 2.0 / 4.0
