"""When a question is refused: both thresholds, by a table and by a calibration made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generation.evidence import defaults
from generation.evidence.calibration import (
    DEFAULT_CALIBRATION,
    Calibration,
    CalibrationStore,
    Outcome,
    to_proto,
)
from generation.evidence.confidence import SIGNALS, Confidence
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.logistic import LogisticModel
from generation.memory.conversation import ConversationMemory
from generation.service import GenerationService
from nearline import contract as c
from nearline.v1 import snapshot_pb2
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

OFF_TOPIC, NO_EVIDENCE = c.RefusalReason.OFF_TOPIC, c.RefusalReason.NO_EVIDENCE
ABOUT_THE_KETTLE = "descale the kettle with vinegar"
ABOUT_ANYTHING = "moons of saturn beyond neptune"


ANSWERED, NOT_SURE, REFUSED = Outcome.ANSWERED, Outcome.NOT_SURE, Outcome.REFUSED
STRICT, BALANCED, LENIENT = c.Strictness


@pytest.mark.parametrize(
    ("evidence", "strictness", "outcome"),
    [
        # The threshold is 0.6, or 0.41 in logits; strict is 0.7 more, lenient 0.9 less.
        (0.60, BALANCED, ANSWERED),
        (0.59, BALANCED, NOT_SURE),
        (0.76, STRICT, ANSWERED),
        (0.74, STRICT, NOT_SURE),
        (0.39, LENIENT, ANSWERED),
        (0.37, LENIENT, NOT_SURE),
        # From 2.0 below the threshold on, passages are shown, whatever the strictness.
        (0.17, STRICT, NOT_SURE),
        (0.17, LENIENT, NOT_SURE),
        (0.16, BALANCED, REFUSED),
        (0.16, LENIENT, REFUSED),
        (0.0, LENIENT, REFUSED),
        (1.0, STRICT, ANSWERED),
    ],
)
def test_strictness_moves_the_threshold(
    evidence: float, strictness: c.Strictness, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = {"strict": 0.7, "balanced": 0.0, "lenient": -0.9}
    monkeypatch.setattr(defaults, "STRICTNESS_LOGITS", beyond)
    monkeypatch.setattr(defaults, "NOT_SURE_LOGITS", -2.0)
    monkeypatch.setattr(defaults, "OFF_TOPIC_LOGITS", -1.0)
    calibration = replace(DEFAULT_CALIBRATION, evidence_threshold=0.6, topic_threshold=0.5)
    assert calibration.decide(Confidence(0.5, evidence), strictness) is outcome
    # Off topic, passages are shown from 1.0 below the threshold on, but an answer stays one.
    beside = REFUSED if outcome is NOT_SURE and evidence < 0.36 else outcome
    assert calibration.decide(Confidence(0.49, evidence), strictness) is beside


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
        (_coverage(20.0), _constant(-2.5), ABOUT_ANYTHING, OFF_TOPIC),
        # What is answered is on topic.
        (_constant(-2.0), _constant(2.0), ABOUT_THE_KETTLE, None),
        (_constant(-2.0), _constant(-2.5), ABOUT_THE_KETTLE, OFF_TOPIC),
        (_constant(-2.0), _constant(-1.7), ABOUT_THE_KETTLE, OFF_TOPIC),
        (_constant(2.0), _constant(-2.5), ABOUT_THE_KETTLE, NO_EVIDENCE),
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


class _Turns(ConversationMemory):
    """Notes the answers of the turns that it is given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.answers: list[str] = []

    async def remember(self, *_: object, answer: str, **__: object) -> None:
        self.answers.append(answer)


async def test_the_closest_passages_are_not_remembered_as_the_answer(
    store: Path, embedder: WordEmbedder
) -> None:
    calibration = replace(
        DEFAULT_CALIBRATION,
        topic=_constant(2.0),
        evidence=_constant(-1.0),
        topic_threshold=0.5,
        evidence_threshold=0.5,
    )
    async with opened(OBJECT, store, embedder) as retriever:
        turns = _Turns()
        service = GenerationService(
            retriever,
            EvidenceReader(retriever, embedder),
            calibrations=CalibrationStore(_Manifests(calibration)),
            memory=turns,
        )
        for refuse in (True, False):
            asked = c.Question(text=ABOUT_THE_KETTLE, refuse=refuse)
            events = [event async for event in service.generate(asked, timeout_s=20.0)]
            end = events[-1]
            assert isinstance(end, c.Done) and end.citations and end.not_sure is refuse
    assert turns.answers[0] == "" and "vinegar" in turns.answers[1]


async def test_a_first_question_that_refers_to_nothing_is_asked_back(
    store: Path, embedder: WordEmbedder
) -> None:
    answering = replace(DEFAULT_CALIBRATION, topic_threshold=0.0, evidence_threshold=1.0)
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
        told = replace(question, history=[c.Turn("Does the kettle boil water?", "Yes.")])
        assert not isinstance((await events(told))[-1], c.Refusal) or "refer" not in str(
            (await events(told))[-1]
        )
        assert isinstance((await events(replace(question, refuse=False)))[-1], c.Done)
