"""Checks with an entailment model whether the sources support a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from generation.checks.groundedness import WEAK_SUPPORT
from generation.checks.sentence_verifier import VerifiedSentence
from generation.evidence.sources import EvidenceSource
from nearline.contract import Entailment
from nearline.errors import NearlineError

_SURE = 0.5


async def apply_entailment(
    model: Entailment,
    sentence: VerifiedSentence,
    sources: Sequence[EvidenceSource],
    timeout_s: float,
) -> VerifiedSentence:
    """Returns a sentence with its problems corrected by an entailment model.

    A contradiction adds a problem that no rule detects. Entailment removes the problem of differing
    wording if it is the only one. Other problems remain, because a model may overlook a number.

    Args:
        model: Scores pairs of texts.
        sentence: The sentence as verified by the rules.
        sources: The evidence.
        timeout_s: Maximum wait in seconds; after it, or if the model is unavailable, the sentence
            is returned unchanged.
    """
    if not sentence.spans or not sentence.body:
        return sentence
    premise = " ".join(sources[span.source].text(span) for span in sentence.spans)
    try:
        scores = await model.entail([premise], [sentence.body], timeout_s=timeout_s)
    except NearlineError:
        return sentence
    if scores.contradiction[0] >= _SURE:
        why = f"the source contradicts it, according to a model ({scores.contradiction[0]:.2f})"
        return sentence._replace(problems=(*sentence.problems, why))
    if scores.entailment[0] >= _SURE and sentence.problems == (WEAK_SUPPORT,):
        return sentence._replace(problems=())
    return sentence
