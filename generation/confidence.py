"""How likely a question is one for the collection, and how likely the evidence answers it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.scoring import Document, Term, WordsOf
from nearline.contract import Hit

# Weight, mean and scale by name of a signal.
Model = Mapping[str, tuple[float, float, float]]
# The shipped models, of standardised signals; not calibrated on anybody's own collection.
# Source: python -m benchmarks.answer_defaults, 2026-11-25: SciFact train, topic against the same
# claims asked of Python's documentation. AUROC on SciFact test 0.807 (evidence), 0.995 (topic,
# Cranfield's questions being the strange ones).
_TOPIC: Model = {
    "dense_best": (2.3593, 0.4443, 0.2279),
    "dense_mean": (2.8247, 0.3194, 0.1917),
    "lexical_best": (2.5689, 0.2421, 0.1974),
    "coverage_first": (2.766, 0.3643, 0.3116),
}
_EVIDENCE: Model = {
    "dense_best": (0.3207, 0.6544, 0.1152),
    "lexical_best": (-0.4072, 0.4115, 0.1404),
    "coverage_first": (1.5703, 0.6327, 0.2184),
    "coverage_best": (-0.3119, 0.658, 0.2035),
    "sentence_coverage": (0.1063, 0.5219, 0.1855),
    "sentence_cosine": (0.6213, 0.7022, 0.1167),
    "words": (-0.2303, 2.2587, 0.3077),
}
_TOPIC_BIAS = 3.6229
_EVIDENCE_BIAS = 0.227
_LOOKED_AT = 3  # Documents.


class Confidence(NamedTuple):
    """Probabilities, 0..1."""

    topic: float
    evidence: float


def signals(
    terms: Sequence[Term],
    hits: Sequence[Hit],
    documents: Sequence[Document],
    words_of: WordsOf,
    cosines: NDArray[np.float32],
) -> dict[str, float]:
    """Describes how well what was found fits a question.

    Args:
        terms: The question's stems with their idf.
        hits: Chunks found, explained, best first; at least one.
        documents: The evidence made of them.
        words_of: Makes the stems of a text.
        cosines: (n,) of sentences to the question; NaN where they are not known.
    """
    dense = [h.explanation.dense_score or 0.0 for h in hits if h.explanation is not None] or [0.0]
    lexical = [h.explanation.lexical_score or 0.0 for h in hits if h.explanation is not None]
    mass = sum(term.idf for term in terms) or 1.0
    held = []
    by_sentence = [0.0]
    for document in documents[:_LOOKED_AT]:
        parts = [document.text[start:end] for start, end in document.sentences]
        words = [set(words_of(part)) for part in parts]
        whole = set(words_of(document.title)).union(*words)
        held.append(_mass(terms, whole) / mass)
        by_sentence += [_mass(terms, each) / mass for each in words]
    known = cosines[np.isfinite(cosines)]
    return {
        "dense_best": max(dense),
        "dense_mean": sum(dense) / len(dense),
        "lexical_best": max(lexical, default=0.0) / mass,
        "coverage_first": held[0] if held else 0.0,
        "coverage_best": max(held, default=0.0),
        "sentence_coverage": max(by_sentence),
        "sentence_cosine": float(known.max()) if len(known) else max(dense),
        "words": math.log1p(len(terms)),
    }


def assess(found: Mapping[str, float]) -> Confidence:
    """Gives both probabilities from `signals`."""
    return Confidence(
        probability(found, _TOPIC, _TOPIC_BIAS), probability(found, _EVIDENCE, _EVIDENCE_BIAS)
    )


def probability(found: Mapping[str, float], model: Model, bias: float) -> float:
    """Gives what a logistic model makes of signals, 0..1.

    Args:
        found: Signals by name.
        model: Weight, mean and scale by name of a signal.
        bias: Its constant.
    """
    total = bias + sum(w * (found[name] - mean) / scale for name, (w, mean, scale) in model.items())
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


def _mass(terms: Sequence[Term], words: set[str]) -> float:
    return sum(term.idf for term in terms if term.word in words)
