"""Evaluates a calibration on observed questions outside its training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generation.evidence.calibration import Calibration
from generation.evidence.logistic import Floats
from generation.training import eval_metrics
from generation.training.calibrator import predict_probabilities
from generation.training.dataset import QuestionExample, RankingExample
from generation.training.eval_metrics import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationEvaluation:
    """The quality of a calibration; a measure is None if there was no data for it.

    recall_inside: By k, the share of labelled spans among the k best sentences of their document,
        mean over documents.
    recall_found: The same over all sentences of the found documents, mean over questions.
    off_topic: AUROC against questions of another collection.
    no_evidence: AUROC of questions with an answer against those without.
    operating: Effect of the calibrated thresholds.
    half: Effect of the threshold that answers half of the questions.
    kept: Share of the questions that are not refused as off topic.
    strange_kept: The same for questions of another collection.
    answerable_kept: Share of the questions with an answer that are not refused.
    unanswerable_refused: Share of the questions without an answer that are refused.
    """

    recall_inside: dict[int, float | None]
    recall_found: dict[int, float | None]
    off_topic: float | None
    no_evidence: float | None
    operating: OperatingPoint
    half: OperatingPoint
    kept: float
    strange_kept: float | None
    answerable_kept: float | None
    unanswerable_refused: float | None


def evaluate_calibration(
    calibration: Calibration,
    observed: Sequence[QuestionExample],
    strange: Sequence[QuestionExample] = (),
) -> CalibrationEvaluation:
    """Evaluates a calibration.

    Args:
        calibration: A learned calibration, or the default.
        observed: Questions, at least one, observed with all sentences of their cited documents.
        strange: Questions about another collection.
    """
    answerable = np.array([one.question.has_answer for one in observed], np.bool_)
    topic = predict_probabilities(calibration.topic, observed)
    evidence = predict_probabilities(calibration.evidence, observed)
    foreign = predict_probabilities(calibration.topic, strange)
    inside = [ranked for one in observed for ranked in one.inside]
    found = [one.found for one in observed if one.question.has_answer]
    kept = evidence >= calibration.evidence_threshold
    foreign_evidence = predict_probabilities(calibration.evidence, strange)
    return CalibrationEvaluation(
        recall_inside={k: _recall(calibration, inside, k) for k in (3, 5)},
        recall_found={k: _recall(calibration, found, k) for k in (3, 5)},
        off_topic=eval_metrics.auroc(topic, foreign) if strange else None,
        no_evidence=(
            eval_metrics.auroc(evidence[answerable], evidence[~answerable])
            if answerable.any() and not answerable.all()
            else None
        ),
        operating=eval_metrics.operating_point(
            evidence, answerable, calibration.evidence_threshold
        ),
        half=eval_metrics.at_coverage(eval_metrics.risk_coverage(evidence, answerable), 0.5),
        kept=_on_topic(calibration, topic, evidence),
        strange_kept=_on_topic(calibration, foreign, foreign_evidence) if strange else None,
        answerable_kept=float(kept[answerable].mean()) if answerable.any() else None,
        unanswerable_refused=None if answerable.all() else float(1 - kept[~answerable].mean()),
    )


def _on_topic(calibration: Calibration, topic: Floats, evidence: Floats) -> float:
    """Returns the share of questions that are not refused as off topic."""
    # What is answered is on topic; see `Calibration.decide`.
    answered = evidence >= calibration.evidence_threshold
    return float(np.mean(answered | (topic >= calibration.topic_threshold)))


def _recall(calibration: Calibration, ranked: Sequence[RankingExample], k: int) -> float | None:
    values = [
        eval_metrics.recall_at_k(one.held, calibration.rank(one.features), k)
        for one in ranked
        if one.held.shape[1]
    ]
    return float(np.mean(values)) if values else None
