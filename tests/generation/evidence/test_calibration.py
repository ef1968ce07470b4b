"""Tests calibrations: models, messages, and one request per snapshot."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from generation.evidence import calibration
from generation.evidence.calibration import (
    DEFAULT_CALIBRATION,
    Calibration,
    CalibrationStats,
    CalibrationStore,
)
from generation.evidence.confidence import SIGNALS
from generation.evidence.logistic import LogisticModel
from nearline.errors import NotReady, SnapshotMismatch
from nearline.v1 import snapshot_pb2

LEARNED = CalibrationStats(
    questions=120, answerable=80, topic_auroc=0.99, evidence_auroc=0.8, coverage=0.5, risk=0.14
)


def _learned(threshold: float = 0.7) -> Calibration:
    return replace(
        DEFAULT_CALIBRATION, evidence_threshold=threshold, target_risk=0.15, learned=LEARNED
    )


class _Router:
    """Reads manifests from memory, and counts requests.

    Args:
        answers: Cards by snapshot id; other snapshots have none.
        failures: Number of first requests that fail.
    """

    def __init__(
        self, answers: dict[str, snapshot_pb2.AnswerCard] | None = None, failures: int = 0
    ) -> None:
        self.answers = answers or {}
        self.failures = failures
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def snapshot(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        self.asked.append(snapshot_id)
        await self.may_answer.wait()
        if self.failures:
            self.failures -= 1
            raise NotReady("the router is away")
        return snapshot_pb2.Manifest(answers=self.answers.get(snapshot_id))


def test_the_logit_is_the_sum_of_standardised_features() -> None:
    model = LogisticModel.of({"b": (2.0, 0.25, 0.5), "a": (1.0, 0.0, 1.0)}, 0.5, ("a", "b", "c"))
    rows = np.array([[1.0, 0.75, 9.0], [math.nan, 0.25, 9.0]])
    assert model.score(rows, ("a", "b", "c")).tolist() == [0.5 + 2.0 + 1.0, 0.5]
    assert model.probability({"a": 0.0, "b": 0.0, "c": 9.0}) == pytest.approx(
        1 / (1 + math.exp(0.5))
    )
    assert model.probability({"a": 1e9, "b": 0.0}) == pytest.approx(1.0)


def test_a_model_with_unknown_features_is_refused() -> None:
    with pytest.raises(SnapshotMismatch, match=r"uses moon, which .*--calibrate-on"):
        LogisticModel.of({"moon": (1.0, 0.0, 1.0), "a": (1.0, 0.0, 1.0)}, 0.0, ("a",))


@pytest.mark.parametrize("term", [(math.nan, 0.0, 1.0), (1.0, 0.0, 0.0), (1.0, math.inf, 1.0)])
def test_a_model_with_invalid_numbers_is_refused(term: tuple[float, float, float]) -> None:
    with pytest.raises(SnapshotMismatch, match="not a number"):
        LogisticModel.of({"a": term}, 0.0, ("a",))


def test_a_calibration_round_trips_through_its_card() -> None:
    card = calibration.to_proto(_learned())
    again = calibration.from_proto(snapshot_pb2.AnswerCard.FromString(card.SerializeToString()))
    assert calibration.to_proto(again) == card
    assert again.learned == LEARNED and again.calibrated
    assert (again.evidence_threshold, again.target_risk) == (0.7, 0.15)
    assert not calibration.from_proto(calibration.to_proto(DEFAULT_CALIBRATION)).calibrated


def test_the_default_is_more_confident_with_more_evidence() -> None:
    least, most = dict.fromkeys(SIGNALS, 0.0), dict.fromkeys(SIGNALS, 0.0)
    shares = ("coverage_first", "sentence_coverage", "heaviest_held", "lexical_best")
    for name in ("dense_best", "dense_top", *shares):
        most[name] = 0.9
    strong, weak = DEFAULT_CALIBRATION.assess(most), DEFAULT_CALIBRATION.assess(least)
    assert strong.topic > DEFAULT_CALIBRATION.topic_threshold > weak.topic
    assert strong.evidence > weak.evidence
    assert not DEFAULT_CALIBRATION.calibrated


async def test_concurrent_callers_read_a_manifest_once() -> None:
    router = _Router({"one": calibration.to_proto(_learned())})
    calibrations = CalibrationStore(router)
    router.may_answer.clear()
    waiting = [asyncio.create_task(calibrations.of("default", "one")) for _ in range(5)]
    await asyncio.sleep(0)
    # A caller that leaves does not cancel the request of the others.
    waiting.pop(0).cancel()
    await asyncio.sleep(0)
    router.may_answer.set()
    found = await asyncio.gather(*waiting)
    assert all(one.evidence_threshold == 0.7 for one in found)
    assert await calibrations.of("default", "one") is found[0]
    assert router.asked == ["one"]


async def test_without_a_card_the_default_is_used_and_cached() -> None:
    router = _Router()
    calibrations = CalibrationStore(router)
    assert await calibrations.of("default", "old") is DEFAULT_CALIBRATION
    assert await calibrations.of("default", "old") is DEFAULT_CALIBRATION
    assert router.asked == ["old"]


async def test_a_failed_read_is_tried_again() -> None:
    router = _Router({"one": calibration.to_proto(_learned())}, failures=1)
    calibrations = CalibrationStore(router)
    assert await calibrations.of("default", "one") is DEFAULT_CALIBRATION
    assert (await calibrations.of("default", "one")).calibrated


async def test_a_slow_router_does_not_block_and_its_answer_is_cached() -> None:
    router = _Router({"one": calibration.to_proto(_learned())})
    calibrations = CalibrationStore(router)
    router.may_answer.clear()
    async with asyncio.timeout(5):
        assert await calibrations.of("default", "one", 0.0) is DEFAULT_CALIBRATION
    assert not calibrations.knows("default", "one")
    router.may_answer.set()
    assert (await calibrations.of("default", "one")).calibrated
    assert calibrations.knows("default", "one")
    assert router.asked == ["one"]


async def test_a_card_of_another_version_is_not_used() -> None:
    card = calibration.to_proto(_learned())
    card.evidence.terms[0].name = "moon"
    assert (
        await CalibrationStore(_Router({"one": card})).of("default", "one") is DEFAULT_CALIBRATION
    )


async def test_the_least_recently_used_snapshot_is_evicted() -> None:
    router = _Router()
    calibrations = CalibrationStore(router, cache_size=2)
    for snapshot_id in ("a", "b", "a", "c", "a", "b"):
        await calibrations.of("default", snapshot_id)
    assert router.asked == ["a", "b", "c", "b"]
