"""Asks a model of entailment whether the sources say what a sentence says, where there is one."""

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
    """Returns a sentence with what a model thinks of it.

    A contradiction is a problem that no rule sees. Where the only problem is that the wording
    differs, entailment takes it away; other problems stay, since a model overlooks a number.

    Args:
        model: Judges pairs of texts.
        sentence: As the rules left it.
        sources: The evidence.
        timeout_s: Longest wait; after it, and where the model is away, the rules alone stand.
    """
    if not sentence.spans or not sentence.body:
        return sentence
    premise = " ".join(sources[span.source].text(span) for span in sentence.spans)
    try:
        scores = await model.entail([premise], [sentence.body], timeout_s=timeout_s)
    except NearlineError:
        return sentence
    if scores.contradiction[0] >= _SURE:
        why = f"the source says otherwise, by a model ({scores.contradiction[0]:.2f})"
        return sentence._replace(problems=(*sentence.problems, why))
    if scores.entailment[0] >= _SURE and sentence.problems == (WEAK_SUPPORT,):
        return sentence._replace(problems=())
    return sentence
