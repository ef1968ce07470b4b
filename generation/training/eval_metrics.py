"""Standard measures of a ranking and of refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.evidence.logistic import Floats

_MOST = 0.5


class OperatingPoint(NamedTuple):
    """The effect of a threshold on refusals.

    threshold: Questions with a score at or above it are answered.
    coverage: Share of questions that are answered.
    risk: Share of those that the collection does not answer; 0 if none is answered.
    """

    threshold: float
    coverage: float
    risk: float


def auroc(positive: Floats, negative: Floats) -> float:
    """Returns the probability, 0..1, that a positive scores above a negative; ties count half.

    Returns NaN if either is empty.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    both = positive[:, None] - negative[None]
    return float(((both > 0) + 0.5 * (both == 0)).mean())


def recall_at_k(held: Floats, scores: Floats, k: int) -> float:
    """Returns the share of labelled spans that the k best sentences contain, 0..1.

    A span counts if these sentences together contain more than half of it.

    Args:
        held: (n, g) share of each span that a sentence contains; g >= 1.
        scores: (n,) scores of sentences; larger is better.
        k: Number of sentences.
    """
    best = np.argsort(-scores, kind="stable")[:k]
    return float((held[best].sum(axis=0) > _MOST).mean())


def risk_coverage(scores: Floats, answerable: NDArray[np.bool_]) -> list[OperatingPoint]:
    """Returns the effect of each threshold, the highest first: one entry per distinct score.

    Args:
        scores: (n,) confidence that a question has an answer.
        answerable: (n,) whether it has an answer.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, wrong = scores[order], np.cumsum(~answerable[order])
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, np.ones(min(1, len(order)), np.bool_)))
    return [
        OperatingPoint(float(ordered[at]), (at + 1) / len(order), float(wrong[at]) / (at + 1))
        for at in last
    ]


def at_coverage(curve: Sequence[OperatingPoint], coverage: float) -> OperatingPoint:
    """Returns the first point of a curve with at least a given coverage."""
    return next(point for point in curve if point.coverage >= coverage - 1e-9)


def at_risk(curve: Sequence[OperatingPoint], risk: float) -> OperatingPoint:
    """Returns the point of highest coverage within a risk; else the point of lowest risk."""
    within = [point for point in curve if point.risk <= risk]
    return within[-1] if within else min(curve, key=lambda point: (point.risk, -point.coverage))


def operating_point(
    scores: Floats, answerable: NDArray[np.bool_], threshold: float
) -> OperatingPoint:
    """Returns the effect of a threshold: questions at or above it are answered."""
    answered = scores >= threshold
    risk = float((~answerable[answered]).mean()) if answered.any() else 0.0
    return OperatingPoint(threshold, float(answered.mean()), risk)
