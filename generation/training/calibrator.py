"""Fits a calibration to observed questions, by logistic regressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from generation.evidence.calibration import DEFAULT_CALIBRATION, Calibration, CalibrationStats
from generation.evidence.logistic import Floats, LogisticModel
from generation.evidence.sentence_features import FEATURES
from generation.training import eval_metrics
from generation.training.dataset import QuestionExample, RankingExample
from generation.training.labels import LabelledQuestion
from nearline.errors import InvalidRequest

TARGET_RISK = 0.15
# Signals that do not reveal that the nearest documents were hidden, as gaps and spreads would.
# Source: SelQA, AUROC against other collections 0.980 (0.972 with the best and the mean cosine and
# the coverage of the first document).
TOPIC = ("dense_top", "lexical_best", "sentence_coverage", "heaviest_held")
# Source: cross-validation on SciFact train. AUROC is 0.842, the same as with all signals, and 0.831
# without gaps and runs of characters. The last three raise it on benchmarks/data/near_topic (train)
# from 0.900 to 0.914, and lower it on SelQA test from 0.964 to 0.962.
EVIDENCE = (
    *("dense_best", "dense_gap_2", "dense_gap_5", "sentence_cosine", "sentence_cosine_2"),
    *("lexical_best", "lexical_gap", "coverage_first", "sentence_coverage", "grams_best"),
    *("words", "score_gap", "answer_best", "answer_second"),
    *("answer_coverage", "names_missing", "identifiers_missing"),
)
# Minimum questions of each kind; fewer are not enough to estimate a share of 0.15.
MIN_QUESTIONS = 20
# Share of the labelled questions that may be refused as off topic.
MAX_OFF_TOPIC_SHARE = 0.02
# Inverse strength of the ridge penalty on standardised features. Source: cross-validation on
# SciFact train, where 0.03 to 0.3 do equally well.
STRENGTH = 0.1
_FOLDS = 5


def fit_calibration(
    observed: Sequence[QuestionExample],
    *,
    target_risk: float = TARGET_RISK,
    lost: float = MAX_OFF_TOPIC_SHARE,
    sentence_features: Sequence[str] = FEATURES,
    evidence_signals: Sequence[str] = EVIDENCE,
) -> Calibration:
    """Fits models and thresholds.

    The default sentence model is kept if found sentences answer fewer than MIN_QUESTIONS questions.

    Args:
        observed: Questions, also observed with the nearest documents hidden.
        target_risk: Permitted share of answers without evidence, 0..1.
        lost: Share of the questions that may be refused as off topic, 0..1.
        sentence_features: Features of the sentence model, from `sentence_features.FEATURES`.
        evidence_signals: Signals of the NO_EVIDENCE model, from `confidence.SIGNALS`.
    Raises: InvalidRequest: fewer than MIN_QUESTIONS questions have an
        answer, or fewer have none.
    """
    check_question_counts([one.question for one in observed])
    answerable = np.array([one.question.has_answer for one in observed], np.bool_)
    groups = group_questions([one.question.cited for one in observed])
    topic, topic_threshold, topic_auroc = _topic(observed, groups, lost)
    rows = feature_matrix([one.signals for one in observed], evidence_signals)
    seen = cross_validated(rows, answerable, groups, evidence_signals)
    point = eval_metrics.at_risk(eval_metrics.risk_coverage(seen, answerable), target_risk)
    return Calibration(
        sentences=fit_sentence_model(observed, sentence_features),
        topic=topic,
        evidence=fit(rows, answerable, evidence_signals),
        topic_threshold=topic_threshold,
        evidence_threshold=_probability(point.threshold),
        target_risk=target_risk,
        learned=CalibrationStats(
            questions=len(observed),
            answerable=int(answerable.sum()),
            topic_auroc=topic_auroc,
            evidence_auroc=eval_metrics.auroc(seen[answerable], seen[~answerable]),
            coverage=point.coverage,
            risk=point.risk,
        ),
    )


def check_question_counts(questions: Sequence[LabelledQuestion]) -> None:
    """Raises InvalidRequest if there are too few questions of either kind for a calibration."""
    count = sum(one.has_answer for one in questions)
    for kind, there in (("with", count), ("without", len(questions) - count)):
        if there < MIN_QUESTIONS:
            raise InvalidRequest(
                f"there are {len(questions)} labelled questions, {there} of them {kind} an answer "
                f"in the collection; at least {MIN_QUESTIONS} are needed to calibrate",
                field="calibrate_on",
            )


def fit_sentence_model(observed: Sequence[QuestionExample], names: Sequence[str]) -> LogisticModel:
    """Fits the sentence model on all questions, so that its probabilities hold for any of them."""
    ranked: list[RankingExample] = [one.found for one in observed]
    if sum(one.evidence.any() for one in ranked) < MIN_QUESTIONS:
        return DEFAULT_CALIBRATION.sentences
    columns = [FEATURES.index(name) for name in names]
    rows = np.concatenate([one.features for one in ranked])[:, columns]
    return fit(rows, np.concatenate([one.evidence for one in ranked]), names)


def _topic(
    observed: Sequence[QuestionExample], groups: NDArray[np.int64], lost: float
) -> tuple[LogisticModel, float, float]:
    """Returns the model, its threshold and its AUROC; the default if nothing was hidden."""
    hidden = [(one.hidden, group) for one, group in zip(observed, groups, strict=True)]
    strange = [(signals, group) for signals, group in hidden if signals is not None]
    if len(strange) < MIN_QUESTIONS:
        return DEFAULT_CALIBRATION.topic, DEFAULT_CALIBRATION.topic_threshold, 0.0
    rows = feature_matrix(
        [*(one.signals for one in observed), *(signals for signals, _ in strange)], TOPIC
    )
    ours = np.arange(len(rows)) < len(observed)
    both = np.concatenate([groups, [group for _, group in strange]])
    seen = cross_validated(rows, ours, both, TOPIC, balanced=True)
    threshold = float(np.quantile(seen[ours], lost))
    model = fit(rows, ours, TOPIC, balanced=True)
    return model, _probability(threshold), eval_metrics.auroc(seen[ours], seen[~ours])


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def predict_probabilities(model: LogisticModel, observed: Sequence[QuestionExample]) -> Floats:
    """Returns the probability (n,) that a model assigns to each question."""
    return np.array([model.probability(one.signals) for one in observed], np.float64)


def fit(
    rows: Floats, target: NDArray[np.bool_], names: Sequence[str], *, balanced: bool = False
) -> LogisticModel:
    """Fits a logistic regression.

    Args:
        rows: (n, f) features; NaN counts as the mean of its column.
        target: (n,) labels; both values must occur.
        names: Names of the f columns.
        balanced: Whether both labels have the same total weight, regardless of their counts.
    """
    rows = _filled(rows)
    scaler = StandardScaler().fit(rows)
    regression = LogisticRegression(
        C=STRENGTH, class_weight="balanced" if balanced else None, max_iter=1_000
    ).fit(scaler.transform(rows), target)
    return LogisticModel(
        names=tuple(names),
        weights=regression.coef_[0].astype(np.float64),
        means=scaler.mean_.astype(np.float64),
        scales=scaler.scale_.astype(np.float64),
        bias=float(regression.intercept_[0]),
    )


def cross_validated(
    rows: Floats,
    target: NDArray[np.bool_],
    groups: NDArray[np.int64],
    names: Sequence[str],
    *,
    balanced: bool = False,
) -> Floats:
    """Returns the logit of each row, (n,), from a model trained without the row's group.

    Args:
        rows, target, names, balanced: See `fit`.
        groups: (n,) group of each row; at least 2. A group is never split between training and
            test.
    """
    logits = np.empty(len(rows))
    folds = GroupKFold(min(_FOLDS, len(set(groups.tolist()))), shuffle=True, random_state=0)
    for learned, held_out in folds.split(rows, target, groups):
        if len(set(target[learned].tolist())) < 2:
            # All rows of one label are held out, so nothing can be learned.
            logits[held_out] = 0.0
            continue
        model = fit(rows[learned], target[learned], names, balanced=balanced)
        logits[held_out] = model.score(rows[held_out], list(names))
    return logits


def group_questions(keys: Sequence[frozenset[str]]) -> NDArray[np.int64]:
    """Returns the group of each question, (n,); shared documents link questions."""
    parents = list(range(len(keys)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    first: dict[str, int] = {}
    for at, held in enumerate(keys):
        for key in held:
            parents[root(at)] = root(first.setdefault(key, at))
    return np.array([root(at) for at in range(len(keys))], np.int64)


def feature_matrix(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    """Returns the named features as (n, f)."""
    rows = [[one[name] for name in names] for one in found]
    return np.array(rows, np.float64).reshape(len(found), len(names))


def _filled(rows: Floats) -> Floats:
    known = np.isfinite(rows)
    means = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, rows, means)
