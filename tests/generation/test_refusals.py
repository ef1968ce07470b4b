"""When a question is refused: both thresholds, by a table and by a calibration made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generation.composer import _refusal_reason
from generation.evidence.calibration import (
    DEFAULT_CALIBRATION,
    Calibration,
    CalibrationStore,
    to_proto,
)
from generation.evidence.confidence import SIGNALS, Confidence
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.logistic import LogisticModel
from generation.service import GenerationService
from nearline import contract as c
from nearline.v1 import snapshot_pb2
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

OFF_TOPIC, NO_EVIDENCE = c.RefusalReason.OFF_TOPIC, c.RefusalReason.NO_EVIDENCE
ABOUT_THE_KETTLE = "descale the kettle with vinegar"
ABOUT_ANYTHING = "moons of saturn beyond neptune"


@pytest.mark.parametrize(
    ("topic", "evidence", "reason"),
    [
        (0.40, 0.60, None),
        (0.99, 0.99, None),
        (0.39, 0.99, OFF_TOPIC),
        (0.39, 0.10, OFF_TOPIC),
        (0.40, 0.59, NO_EVIDENCE),
        (0.99, 0.59, NO_EVIDENCE),
        (0.00, 0.00, OFF_TOPIC),
    ],
)
def test_a_question_below_a_threshold_is_refused_and_one_at_it_is_answered(
    topic: float, evidence: float, reason: c.RefusalReason | None
) -> None:
    calibration = replace(DEFAULT_CALIBRATION, topic_threshold=0.4, evidence_threshold=0.6)
    sure = Confidence(topic, evidence)
    asked = c.Question(text="x")
    assert _refusal_reason(asked, sure, calibration, judged=False) is reason
    # What the judge finds an answer to is on topic.
    found = None if evidence >= 0.6 else reason
    assert _refusal_reason(asked, sure, calibration, judged=True) is found
    unlimited = replace(asked, refuse=False)
    assert _refusal_reason(unlimited, sure, calibration, judged=False) is None


def _constant(logit: float) -> LogisticModel:
    return LogisticModel.of({}, logit, SIGNALS)


def _coverage(steepness: float) -> LogisticModel:
    """Near 1 if the first document has most of the question's words, else near 0; or reversed."""
    return LogisticModel.of({"coverage_first": (steepness, 0.5, 1.0)}, 0.0, SIGNALS)


class _Manifests:
    def __init__(self, calibration: Calibration) -> None:
        self._card = to_proto(calibration)

    async def snapshot(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        return snapshot_pb2.Manifest(answers=self._card)


@pytest.mark.parametrize(
    ("topic", "evidence", "question", "reason"),
    [
        (_constant(2.0), _coverage(20.0), ABOUT_THE_KETTLE, None),
        (_constant(2.0), _coverage(20.0), ABOUT_ANYTHING, NO_EVIDENCE),
        (_coverage(20.0), _constant(2.0), ABOUT_THE_KETTLE, None),
        (_coverage(20.0), _constant(2.0), ABOUT_ANYTHING, OFF_TOPIC),
        (_constant(-2.0), _constant(2.0), ABOUT_THE_KETTLE, OFF_TOPIC),
        (_constant(2.0), _constant(-2.0), ABOUT_THE_KETTLE, NO_EVIDENCE),
    ],
)
async def test_the_calibration_of_the_snapshot_decides_whether_to_answer(
    store: Path,
    embedder: WordEmbedder,
    topic: LogisticModel,
    evidence: LogisticModel,
    question: str,
    reason: c.RefusalReason | None,
) -> None:
    calibration = replace(
        DEFAULT_CALIBRATION,
        topic=topic,
        evidence=evidence,
        topic_threshold=0.5,
        evidence_threshold=0.5,
    )
    async with opened(OBJECT, store, embedder) as retriever:
        service = GenerationService(
            retriever,
            EvidenceReader(retriever, embedder),
            calibrations=CalibrationStore(_Manifests(calibration)),
        )

        async def last(asked: c.Question) -> c.AnswerEvent:
            return [event async for event in service.generate(asked, timeout_s=20.0)][-1]

        end = await last(c.Question(text=question))
        if reason is None:
            assert isinstance(end, c.Done) and end.citations
        else:
            assert isinstance(end, c.Refusal) and end.reason is reason
        assert isinstance(await last(c.Question(text=question, refuse=False)), c.Done)


async def test_a_first_question_that_refers_to_nothing_is_asked_back(
    store: Path, embedder: WordEmbedder
) -> None:
    answering = replace(DEFAULT_CALIBRATION, topic_threshold=0.0, evidence_threshold=0.0)
    async with opened(OBJECT, store, embedder) as retriever:
        service = GenerationService(
            retriever,
            EvidenceReader(retriever, embedder),
            calibrations=CalibrationStore(_Manifests(answering)),
        )
        question = c.Question(text="How do I descale it?")

        async def events(asked: c.Question) -> list[c.AnswerEvent]:
            return [event async for event in service.generate(asked, timeout_s=20.0)]

        found = await events(question)
        assert [type(event) for event in found] == [c.Evidence, c.Usage, c.Refusal]
        end = found[-1]
        assert isinstance(end, c.Refusal) and end.reason is c.RefusalReason.UNCLEAR
        assert 'What does "it" refer to?' in end.message
        assert (end.topic_probability, end.evidence_probability) == (0.0, 0.0)
        told = replace(question, history=[c.Turn("Does the kettle boil water?", "Yes.")])
        assert isinstance((await events(told))[-1], c.Done)
        assert isinstance((await events(replace(question, refuse=False)))[-1], c.Done)
