"""Computes signals of how well the evidence fits a question; both kinds of refusal use them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.evidence.question_names import (
    asked_identifiers,
    asked_names,
    lacks_identifiers,
    lacks_names,
)
from generation.evidence.sentence_features import (
    EvidenceDocument,
    QueryTerm,
    WordsOf,
    character_runs,
    list_contexts,
    list_sentences,
)
from nearline.contract import Hit

# A gap is measured between the best chunks of documents; 0 if there is only one document. Cosines
# are NaN (unknown) if the search was by words alone.
SIGNALS = (
    "dense_best",  # cosine of the best chunk
    "dense_mean",  # mean cosine of all chunks
    "dense_top",  # mean cosine of the five best chunks
    "dense_gap_2",  # cosine of the best document less that of the second
    "dense_gap_5",  # and of the fifth
    "lexical_best",  # BM25 of the best chunk as a share of the question's idf mass
    "lexical_gap",  # from the best document to the second, likewise
    "score_gap",  # score of the first document less that of the second
    "coverage_first",  # share of the question's idf mass that the first document holds
    "coverage_best",  # the most of the first three
    "sentence_coverage",  # the most in one sentence of the first three
    "heaviest_held",  # share of the question's four heaviest terms that the documents hold
    "missing_heaviest",  # idf of the heaviest term that the first document lacks, as a share
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
    cosines: NDArray[np.float32],
    judged: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """Returns SIGNALS, by name.

    Args:
        question: Text of the question.
        terms: Stems of the question with their idf.
        hits: Chunks with explanations, best first; at least one.
        documents: The documents of the evidence, best first.
        words_of: Returns the stems of a text.
        cosines: (n,) cosines of sentences to the question; NaN if unknown.
        judged: (n,) logits of the judge, likewise; None without a judge.
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
    held: list[float] = []
    by_sentence, grams, missing = [0.0], [0.0], 1.0
    asked = character_runs(question)
    for rank, document in enumerate(documents):
        parts = [document.text[start:end] for start, end in document.sentences]
        words = [set(words_of(part)) for part in parts]
        whole = set(words_of(document.title)).union(*words)
        found |= whole
        if rank >= _EXAMINED_DOCUMENTS:
            continue
        if not held:
            lacking = [term.idf for term in terms if term.word not in whole]
            missing = max(lacking, default=0.0) / mass
        held.append(_mass(terms, whole) / mass)
        by_sentence += [_mass(terms, each) / mass for each in words]
        runs = character_runs(f"{document.title} {document.text}")
        grams.append(len(asked & runs) / (len(asked) or 1))
    heaviest = sorted(terms, key=lambda term: -term.idf)[:_HEAVIEST_TERMS]
    top = sorted(chunks, reverse=True)[:_TOP_CHUNKS]
    known: list[float] = np.sort(cosines[np.isfinite(cosines)])[::-1].tolist()
    return {
        "dense_best": max(chunks),
        "dense_mean": sum(chunks) / len(chunks),
        "dense_top": sum(top) / len(top),
        "dense_gap_2": _gap(dense, 2),
        "dense_gap_5": _gap(dense, 5),
        "lexical_best": max(lexical, default=0.0) / mass,
        "lexical_gap": _gap(lexical, 2) / mass,
        "score_gap": _gap(score, 2),
        "coverage_first": held[0] if held else 0.0,
        "coverage_best": max(held, default=0.0),
        "sentence_coverage": max(by_sentence),
        "heaviest_held": sum(term.word in found for term in heaviest) / (len(heaviest) or 1),
        "missing_heaviest": missing,
        "grams_best": max(grams),
        "sentence_cosine": known[0] if known else max(chunks),
        "sentence_cosine_2": known[min(1, len(known) - 1)] if known else max(chunks),
        "words": math.log1p(len(terms)),
        **_judge_signals(question, terms, documents, words_of, judged),
    }


def _judge_signals(
    question: str,
    terms: Sequence[QueryTerm],
    documents: Sequence[EvidenceDocument],
    words_of: WordsOf,
    judged: NDArray[np.float32] | None,
) -> dict[str, float]:
    """Returns the signals of the sentence that answers best, all NaN without a judge."""
    names = (
        "answer_best",
        "answer_second",
        "answer_coverage",
        "names_missing",
        "identifiers_missing",
    )
    if judged is None or not np.isfinite(judged).any():
        return dict.fromkeys(names, math.nan)
    known = np.sort(judged[np.isfinite(judged)])[::-1]
    row = int(np.nanargmax(judged))
    best, context = list_sentences(documents)[row], list_contexts(documents)[row]
    document = documents[best.document]
    sentence = document.text[best.start : best.end]
    mass = sum(term.idf for term in terms) or 1.0
    values = (
        float(known[0]),
        float(known[min(1, len(known) - 1)]),
        _mass(terms, {*words_of(context), *words_of(sentence)}) / mass,
        lacks_names(asked_names(question), f"{context}\n{sentence}"),
        lacks_identifiers(asked_identifiers(question), f"{context}\n{sentence}"),
    )
    return dict(zip(names, values, strict=True))


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
