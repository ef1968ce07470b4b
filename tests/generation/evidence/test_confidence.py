"""Tests the signals by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from generation.evidence import confidence
from generation.evidence.confidence import SIGNALS
from generation.evidence.sentence_features import (
    EvidenceDocument,
    QueryTerm,
    add_judgements,
    compute_features,
)
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


def _signals(
    question: str,
    terms: Sequence[QueryTerm],
    hits: Sequence[Hit],
    documents: Sequence[EvidenceDocument],
    cosines: NDArray[np.float32],
    judged: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    features = compute_features(terms, documents, _words, cosines, query=question)
    if judged is not None:
        features = add_judgements(features, judged)
    return confidence.compute_signals(question, terms, hits, documents, _words, features)


def _found() -> dict[str, float]:
    return _signals("cat mat", TERMS, HITS, DOCUMENTS, COSINES)


def test_gaps_are_between_documents_by_their_best_chunks() -> None:
    found = _found()
    assert set(found) == set(SIGNALS)
    assert found["dense_best"] == 0.8
    assert found["dense_gap_2"] == pytest.approx(0.8 - 0.5)
    assert found["dense_top"] == pytest.approx((0.8 + 0.6 + 0.5 + 0.1) / 4)
    six = [*HITS, _hit("d", 0.1, 0.0, 0.0), _hit("e", 0.1, -0.9, 0.0)]
    best = _signals("cat mat", TERMS, six, DOCUMENTS, COSINES)
    assert best["dense_top"] == pytest.approx((0.8 + 0.6 + 0.5 + 0.1 + 0.0) / 5)
    # There are three documents, so the last is used as the fifth.
    assert found["dense_gap_5"] == pytest.approx(0.8 - 0.1)
    assert found["lexical_best"] == 3.0 / 4.0
    assert found["lexical_gap"] == pytest.approx((3.0 - 1.0) / 4.0)
    assert found["score_gap"] == pytest.approx(0.9 - 0.7)


def test_coverage_is_the_share_of_idf_in_a_document_or_a_sentence() -> None:
    found = _found()
    assert found["coverage_first"] == 0.25
    assert found["sentence_coverage"] == 0.75
    # Together, the documents hold both terms.
    assert found["heaviest_held"] == 1.0
    five = [QueryTerm(word, idf) for idf, word in enumerate("mat owl elk cat ant".split(), 1)]
    held = _signals("?", five, HITS, DOCUMENTS, COSINES)["heaviest_held"]
    # "mat" is the lightest of the five; of the other four, the documents hold "cat".
    assert held == 0.25
    # "cat mat" has the runs "cat m", "at ma", "t mat".
    mat = EvidenceDocument("", "a cat mat", 1.0, [(0, 9)])
    assert found["grams_best"] == 0.0
    assert _signals("cat mat", TERMS, HITS, [mat], COSINES[:1])["grams_best"] == 1.0
    assert found["words"] == math.log1p(2)


def test_the_best_sentences_are_those_with_a_cosine() -> None:
    found = _found()
    assert found["sentence_cosine"] == pytest.approx(0.7)
    assert found["sentence_cosine_2"] == pytest.approx(0.3)
    unknown = np.full(3, np.nan, np.float32)
    without = _signals("cat mat", TERMS, HITS, DOCUMENTS, unknown)
    assert without["sentence_cosine"] == without["sentence_cosine_2"] == 0.8


def test_one_document_has_no_gap_and_no_terms_no_coverage() -> None:
    one = _signals("cat mat", TERMS, HITS[:2], DOCUMENTS[:1], COSINES[:2])
    assert one["dense_gap_2"] == one["lexical_gap"] == one["score_gap"] == 0.0
    bare = _signals("", (), HITS, DOCUMENTS, COSINES)
    assert bare["coverage_first"] == bare["words"] == 0.0
    unjudged = {name for name, value in bare.items() if not math.isfinite(value)}
    judge = {name for name in SIGNALS if name.startswith("answer_")}
    assert unjudged == {*judge, "names_missing", "identifiers_missing"}


def test_the_best_judged_sentences_are_signals() -> None:
    def best(*judged: float) -> tuple[float, float]:
        logits = np.array(judged, np.float32)
        found = _signals("cat", TERMS, HITS, DOCUMENTS, COSINES, logits)
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
        found = _signals(question, terms, HITS, documents, COSINES, np.array(judged, np.float32))
        return found["answer_coverage"], found["names_missing"]

    asked = "How much did the boat of Anna cost in 1936?"
    # The title counts; Anna is in the second sentence, and 1936 is nowhere.
    assert best(asked, 2.0, -1.0, math.nan) == (1.0, 1.0)
    assert best(asked, -2.0, 1.0, math.nan) == (0.75, 0.5)
    assert best(asked, -2.0, math.nan, 1.0) == (0.0, 1.0)


def test_signals_without_a_source_are_0() -> None:
    # Shards that cannot explain, and a search that only one of the two indexes answered.
    bare = [Hit(id="a", score=0.9), Hit(id="b", score=0.2)]
    found = _signals("cat mat", TERMS, bare, DOCUMENTS, COSINES)
    sources = ("dense_best", "dense_top", "dense_gap_2", "lexical_best", "lexical_gap")
    assert {found[name] for name in sources} == {0.0}
    assert found["score_gap"] == pytest.approx(0.7)
    lexical = Explanation(dense_score=None, lexical_score=2.0, shard=0)
    hits = [Hit(id="a", score=0.9, explanation=lexical), HITS[2]]
    found = _signals("cat mat", TERMS, hits, [], COSINES[:0])
    assert (found["dense_best"], found["dense_top"]) == (0.5, 0.25)
    assert (found["lexical_best"], found["lexical_gap"]) == (2.0 / 4.0, 1.0 / 4.0)
    assert found["coverage_first"] == found["sentence_coverage"] == found["grams_best"] == 0.0


def test_cosines_are_unknown_if_the_search_was_by_words_alone() -> None:
    hits = [
        Hit(
            id=one.id,
            score=2.0,
            explanation=Explanation(dense_score=None, lexical_score=2.0, shard=0),
        )
        for one in HITS
    ]
    found = _signals("cat mat", TERMS, hits, DOCUMENTS, np.full(3, np.nan, np.float32))
    unknown = {name for name in SIGNALS if name.startswith(("dense", "sentence_cosine"))}
    assert {name for name, value in found.items() if math.isnan(value)} >= unknown
    assert found["lexical_best"] == 2.0 / 4.0
