"""Tests the measures of rankings and refusals, by arithmetic and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from generation.training import eval_metrics
from generation.training.eval_metrics import OperatingPoint

SCORES = np.array([0.9, 0.8, 0.8, 0.5, 0.1])
ANSWERABLE = np.array([True, True, False, True, False])


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    # Of 3 x 2 pairs: 0.9 beats both, 0.8 ties one and beats one, 0.5 loses one and beats one.
    assert eval_metrics.auroc(SCORES[ANSWERABLE], SCORES[~ANSWERABLE]) == pytest.approx(4.5 / 6)
    assert math.isnan(eval_metrics.auroc(SCORES, SCORES[:0]))


def test_every_distinct_score_is_a_threshold_with_its_coverage_and_risk() -> None:
    assert eval_metrics.risk_coverage(SCORES, ANSWERABLE) == [
        OperatingPoint(0.9, 1 / 5, 0 / 1),
        OperatingPoint(0.8, 3 / 5, 1 / 3),
        OperatingPoint(0.5, 4 / 5, 1 / 4),
        OperatingPoint(0.1, 5 / 5, 2 / 5),
    ]
    assert eval_metrics.risk_coverage(SCORES[:0], ANSWERABLE[:0]) == []


def test_a_threshold_is_chosen_by_coverage_or_by_risk() -> None:
    curve = eval_metrics.risk_coverage(SCORES, ANSWERABLE)
    assert eval_metrics.at_coverage(curve, 0.5).threshold == 0.8
    assert eval_metrics.at_risk(curve, 0.3).threshold == 0.5
    assert eval_metrics.at_risk(curve, 1.0).threshold == 0.1
    # If no threshold is good enough, the one of lowest risk is chosen.
    assert eval_metrics.at_risk(curve[1:], 0.0).threshold == 0.5


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_a_chosen_threshold_agrees_with_the_curve(
    rows: list[tuple[int, bool]], risk: float
) -> None:
    scores = np.array([score for score, _ in rows], np.float64)
    answerable = np.array([held for _, held in rows], np.bool_)
    chosen = eval_metrics.at_risk(eval_metrics.risk_coverage(scores, answerable), risk)
    answered = [held for score, held in rows if score >= chosen.threshold]
    assert chosen.coverage == pytest.approx(len(answered) / len(rows))
    assert chosen.risk == pytest.approx(answered.count(False) / len(answered))
    assert eval_metrics.operating_point(scores, answerable, chosen.threshold) == pytest.approx(
        chosen
    )


def test_a_span_is_found_where_the_best_sentences_hold_more_than_half_of_it() -> None:
    # Span 0 is in sentences 0 and 1, span 1 in sentence 2, span 2 was never retrieved.
    held = np.array([[0.4, 0.0, 0.0], [0.6, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert eval_metrics.recall_at_k(held, np.array([3.0, 2.0, 1.0]), 1) == 0.0
    assert eval_metrics.recall_at_k(held, np.array([3.0, 2.0, 1.0]), 2) == pytest.approx(1 / 3)
    assert eval_metrics.recall_at_k(held, np.array([3.0, 2.0, 1.0]), 3) == pytest.approx(2 / 3)
    assert eval_metrics.recall_at_k(held, np.array([1.0, 2.0, 3.0]), 2) == pytest.approx(2 / 3)
