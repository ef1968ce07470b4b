"""Chooses the writer of an answer: extractive, a small model, or a large one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from generation.protocols import metrics
from generation.protocols.chat_model import ChatFailure
from generation.writers.extractive import EXTRACTIVE
from nearline.admission import leave_out

SMALL, LARGE = "small", "large"
# Part of the keys of cached answers; change it with anything below.
ROUTING_POLICY = "route-1"
# A model that cannot send its first words in this time is not used.
MIN_MODEL_S = 1.0
# Above this probability of evidence, a factual question is answered by the sentence itself.
_STRONG = 0.7
# The best document stands alone if the next one's score is this much smaller.
_ALONE_RATIO = 0.8

_COMPARE = re.compile(r"\b(?:compare[sd]?|comparison|differences?|differ|versus|vs|better)\b")
_EXPLAIN = re.compile(
    r"\b(?:why|explain|describe|summari[sz]e|overview|steps?|pros and cons|implications?)\b"
)
_FACT = re.compile(
    r"^(?:who|when|where|which|what(?:'s| is| are| was| were| does)|how (?:many|much|long|old|far"
    r"|often|big|large)|is|are|was|were|does|do|did|can|has|have)\b"
)


class AnswerKind(Enum):
    """The kind of answer that a question needs."""

    FACT = "fact"
    COMPARISON = "comparison"
    EXPLANATION = "explanation"
    OTHER = "other"


class QueryClass(NamedTuple):
    """The inputs of the decision: kind, near-certain evidence, a single source."""

    kind: AnswerKind
    strong: bool
    single: bool


class Route(NamedTuple):
    """rungs: Writers to try, in order. reason: Why this is not the preferred route; else empty."""

    rungs: tuple[str, ...]
    reason: str = ""


def classify(question: str, evidence: float, scores: Sequence[float]) -> QueryClass:
    """Classifies a question.

    Args:
        question: Its text.
        evidence: Probability that the evidence answers it, 0..1.
        scores: Scores of the found documents, best first; the best is > 0.
    """
    text = question.lower().strip()
    kind = AnswerKind.OTHER
    if _COMPARE.search(text):
        kind = AnswerKind.COMPARISON
    elif _EXPLAIN.search(text):
        kind = AnswerKind.EXPLANATION
    elif _FACT.search(text):
        kind = AnswerKind.FACT
    alone = len(scores) < 2 or scores[1] < _ALONE_RATIO * scores[0]
    return QueryClass(kind, evidence >= _STRONG, alone)


class ModelRouter:
    """Chooses writers; has no state.

    Args:
        available: Names of this service's writers.
    """

    def __init__(self, available: Sequence[str]) -> None:
        self._available = tuple(available)

    def route(self, query: QueryClass, *, asked: str = "", left_s: float | None = None) -> Route:
        """Returns the writers for a question; the extractive one is always last.

        Args:
            query: Class of the question.
            asked: Writer that the caller requests; if empty, the service chooses.
            left_s: Seconds until the caller's deadline; None if there is no limit.
        """
        rungs = self._asked(asked) if asked else self._decide(query)
        if rungs[0] != EXTRACTIVE and left_s is not None and left_s < MIN_MODEL_S:
            return Route((EXTRACTIVE,), f"{left_s:.2f} s are too little time for a model")
        if rungs[0] != EXTRACTIVE and leave_out("model"):
            return Route((EXTRACTIVE,), "the server is overloaded, and does without a model")
        return Route(rungs)

    def _asked(self, name: str) -> tuple[str, ...]:
        if name == EXTRACTIVE:
            return (EXTRACTIVE,)
        rest = (one for one in self._available if one not in (name, EXTRACTIVE))
        return (name, *rest, EXTRACTIVE)

    def _decide(self, query: QueryClass) -> tuple[str, ...]:
        rungs = tuple(name for name in _preferred_rungs(query) if name in self._available)
        metrics.routes.labels(query.kind.value, rungs[0]).inc()
        return rungs


def _preferred_rungs(query: QueryClass) -> tuple[str, ...]:
    if query.kind is AnswerKind.FACT and query.strong:
        return (EXTRACTIVE,)
    if query.single and query.kind in (AnswerKind.FACT, AnswerKind.OTHER):
        return (SMALL, LARGE, EXTRACTIVE)
    return (LARGE, SMALL, EXTRACTIVE)


class NextStep(Enum):
    """Which writer to try after a failure."""

    MODEL = "the next model"
    EXTRACTIVE = "no model"


# Covers every failure. A model that was too slow has used up the time that another would need; a
# request that one provider refuses may be accepted by another.
NEXT_STEP: Mapping[ChatFailure, NextStep] = {
    ChatFailure.CONNECTION: NextStep.MODEL,
    ChatFailure.TIMEOUT: NextStep.MODEL,
    ChatFailure.STALLED: NextStep.MODEL,
    ChatFailure.DEADLINE: NextStep.EXTRACTIVE,
    ChatFailure.RATE_LIMITED: NextStep.MODEL,
    ChatFailure.QUOTA: NextStep.MODEL,
    ChatFailure.UNAUTHORISED: NextStep.MODEL,
    ChatFailure.TOO_LONG: NextStep.MODEL,
    ChatFailure.REFUSED_REQUEST: NextStep.EXTRACTIVE,
    ChatFailure.SERVER: NextStep.MODEL,
    ChatFailure.MALFORMED: NextStep.MODEL,
    ChatFailure.CUT: NextStep.MODEL,
    ChatFailure.EMPTY: NextStep.MODEL,
    ChatFailure.OPEN: NextStep.MODEL,
}


def remaining_rungs(rungs: Sequence[str], failure: ChatFailure) -> tuple[str, ...]:
    """Returns the remaining writers after the first one failed."""
    if len(rungs) < 2 or NEXT_STEP[failure] is NextStep.MODEL:
        return tuple(rungs[1:])
    return (EXTRACTIVE,)
