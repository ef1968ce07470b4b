"""Computes signals of how well the evidence fits a question; both kinds of refusal use them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from generation.evidence.logistic import Floats
from generation.evidence.sentence_features import (
    FEATURES,
    EvidenceDocument,
    QueryTerm,
    WordsOf,
    character_runs,
)
from nearline.contract import Hit

# A gap is measured between the best chunks of documents; 0 if there is only one document. Cosines
# are NaN (unknown) if the search was by words alone.
SIGNALS = (
    "dense_best",  # cosine of the best chunk
    "dense_top",  # mean cosine of the five best chunks
    "dense_gap_2",  # cosine of the best document less that of the second
    "dense_gap_5",  # and of the fifth
    "lexical_best",  # BM25 of the best chunk as a share of the question's idf mass
    "lexical_gap",  # from the best document to the second, likewise
    "score_gap",  # score of the first document less that of the second
    "coverage_first",  # share of the question's idf mass that the first document holds
    "sentence_coverage",  # the most in one sentence of the first three documents
    "heaviest_held",  # share of the question's four heaviest terms that the documents hold
    "grams_best",  # share of the question's runs of five characters, best of the first three
    "sentence_cosine",  # of the best sentence
    "sentence_cosine_2",  # of the second-best one
    "words",  # log(1 + terms of the question)
    "answer_best",  # logit of the sentence that answers the question best; NaN without a judge
    "answer_second",  # and of the second-best one
    "answer_coverage",  # share of the question's idf mass in the best sentence and its title
    "names_missing",  # share of the question's names and numbers that the best unit lacks
    "identifiers_missing",  # share of its options and names of code that the best unit lacks
)
_EXAMINED_DOCUMENTS = 3
# Unlike the mean of all chunks, that of five does not depend on the size of a small collection.
_TOP_CHUNKS = 5
_HEAVIEST_TERMS = 4


class Confidence(NamedTuple):
    """Probabilities, 0..1, that the question is on topic and that the evidence answers it."""

    topic: float
    evidence: float


def compute_signals(
    question: str,
    terms: Sequence[QueryTerm],
    hits: Sequence[Hit],
    documents: Sequence[EvidenceDocument],
    words_of: WordsOf,
    features: Floats,
) -> dict[str, float]:
    """Returns SIGNALS, by name.

    Args:
        question: Text of the question.
        terms: Stems of the question with their idf.
        hits: Chunks with explanations, best first; at least one.
        documents: The documents of the evidence, best first.
        words_of: Returns the stems of a text.
        features: (n, f) features of the units, with cosines and logits of the judge if known.
    """
    mass = sum(term.idf for term in terms) or 1.0
    told = [(hit.id, hit.explanation) for hit in hits if hit.explanation is not None]
    # Of a search by words alone, no cosine is known.
    by_words = bool(told) and all(why.dense_score is None for _, why in told)
    absent = math.nan if by_words else 0.0
    chunks = [why.dense_score or absent for _, why in told] or [0.0]
    dense = _by_document([(name, why.dense_score or absent) for name, why in told])
    lexical = _by_document([(name, why.lexical_score or 0.0) for name, why in told])
    score = _by_document([(hit.id, hit.score) for hit in hits])
    found: set[str] = set()
    coverage_first, by_sentence, grams = 0.0, [0.0], [0.0]
    asked = character_runs(question)
    for rank, document in enumerate(documents):
        parts = [document.text[start:end] for start, end in document.sentences]
        words = [set(words_of(part)) for part in parts]
        whole = set(words_of(document.title)).union(*words)
        found |= whole
        if rank >= _EXAMINED_DOCUMENTS:
            continue
        if rank == 0:
            coverage_first = _mass(terms, whole) / mass
        by_sentence += [_mass(terms, each) / mass for each in words]
        runs = character_runs(f"{document.title} {document.text}")
        grams.append(len(asked & runs) / (len(asked) or 1))
    heaviest = sorted(terms, key=lambda term: -term.idf)[:_HEAVIEST_TERMS]
    top = sorted(chunks, reverse=True)[:_TOP_CHUNKS]
    cosine, second_cosine = _two_best(features, "cosine")
    return {
        **dict.fromkeys(SIGNALS, math.nan),
        "dense_best": max(chunks),
        "dense_top": sum(top) / len(top),
        "dense_gap_2": _gap(dense, 2),
        "dense_gap_5": _gap(dense, 5),
        "lexical_best": max(lexical, default=0.0) / mass,
        "lexical_gap": _gap(lexical, 2) / mass,
        "score_gap": _gap(score, 2),
        "coverage_first": coverage_first,
        "sentence_coverage": max(by_sentence),
        "heaviest_held": sum(term.word in found for term in heaviest) / (len(heaviest) or 1),
        "grams_best": max(grams),
        "sentence_cosine": max(chunks) if math.isnan(cosine) else cosine,
        "sentence_cosine_2": max(chunks) if math.isnan(cosine) else second_cosine,
        "words": math.log1p(len(terms)),
        **_judge_signals(features),
    }


def _judge_signals(features: Floats) -> dict[str, float]:
    """Returns the signals of the unit that answers best; empty without a judge."""
    best, second = _two_best(features, "answer")
    if math.isnan(best):
        return {}
    row = dict(zip(FEATURES, features[features[:, FEATURES.index("answer")].argmax()], strict=True))
    return {
        "answer_best": best,
        "answer_second": second,
        "answer_coverage": float(row["title_coverage"] + row["coverage_beyond_title"]),
        "names_missing": float(row["names_missing"]),
        "identifiers_missing": float(row["identifiers_missing"]),
    }


def _two_best(features: Floats, name: str) -> tuple[float, float]:
    """Returns the two largest values of a feature; NaN if none is known."""
    column = features[:, FEATURES.index(name)]
    known: list[float] = np.sort(column[np.isfinite(column)])[::-1].tolist()
    return (known[0], known[min(1, len(known) - 1)]) if known else (math.nan, math.nan)


def _by_document(scores: Sequence[tuple[str, float]]) -> list[float]:
    """Returns the best score of each document, largest first."""
    best: dict[str, float] = {}
    for name, score in scores:
        best[name] = max(score, best.get(name, score))
    return sorted(best.values(), reverse=True)


def _gap(scores: Sequence[float], rank: int) -> float:
    """Returns the gap between the best score and that of a rank, or the last if there are fewer."""
    return scores[0] - scores[min(rank, len(scores)) - 1] if scores else 0.0


def _mass(terms: Sequence[QueryTerm], words: set[str]) -> float:
    return sum(term.idf for term in terms if term.word in words)
