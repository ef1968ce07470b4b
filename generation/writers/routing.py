"""Chooses the writer of an answer: extractive, a small model, or a large one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from generation.protocols import metrics
from generation.protocols.chat_model import ChatFailure
from generation.writers.extractive import EXTRACTIVE
from generation.writers.question_kinds import AnswerKind
from nearline.admission import leave_out

SMALL, LARGE = "small", "large"
# Part of the keys of cached answers; change it with anything below.
ROUTING_POLICY = "route-2"
# A model that cannot send its first words in this time is not used.
MIN_MODEL_S = 1.0
# Above this probability of evidence, a factual question is answered by the sentence itself.
_STRONG = 0.7
# The best document stands alone if the next one's score is this much smaller.
_ALONE_RATIO = 0.8


class QueryClass(NamedTuple):
    """The inputs of the decision: kind, near-certain evidence, a single source."""

    kind: AnswerKind
    strong: bool
    single: bool

    @classmethod
    def of(cls, kind: AnswerKind, evidence: float, scores: Sequence[float]) -> QueryClass:
        """Returns the class of a question.

        Args:
            kind: Its kind.
            evidence: Probability that the evidence answers it, 0..1.
            scores: Scores of the found documents, best first; the best is > 0.
        """
        single = len(scores) < 2 or scores[1] < _ALONE_RATIO * scores[0]
        return cls(kind, evidence >= _STRONG, single)


class Route(NamedTuple):
    """rungs: Writers to try, in order. reason: Why this is not the preferred route; else empty."""

    rungs: tuple[str, ...]
    reason: str = ""


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
    if query.single and query.kind in (AnswerKind.FACT, AnswerKind.INSTRUCTION):
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
