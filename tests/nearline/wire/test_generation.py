"""Questions, events of answers and conversations survive conversion to protobuf and back."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from gateway.json_encoder import encode
from nearline import contract as c
from nearline.errors import InternalError, InvalidRequest
from nearline.filters import Equals
from nearline.v1 import generation_pb2
from nearline.wire import generation as wire

TIME = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
TURN = c.Turn("How long?", "Three days.", "How long is the wait?", "s1", TIME)
STATE = c.SessionState(id="a", version=3, saved=False, reason="Redis does not answer")
COVERAGE = c.Coverage(shards_answered=3, shards_total=4, missing_shards=(2,))
INFO = c.ReplyInfo(epoch=4, snapshot_id="s1", fingerprint="f", coverage=COVERAGE)
HIT = c.Hit(id="d1", score=0.5, chunk=2, start=3, end=9, title="A title", text="Some text")
CITATION = c.Citation(
    number=2,
    document_id="d1",
    chunk=3,
    char_start=5,
    char_end=8,
    text_hash="ab" * 32,
    snapshot_id="s1",
    title="A title",
    support=0.75,
)
# A value other than the default for every field of a question.
QUESTION = {
    "text": "How long?",
    "filter": Equals("kind", "class"),
    "mode": c.SearchMode.LEXICAL,
    "max_tokens": 99,
    "documents": 7,
    "refuse": False,
    "session_id": "a",
    "session_version": 3,
    "history": [TURN],
    "backend": "small",
    "temperature": 0.5,
    "unsupported": c.Unsupported.MARK,
    "fresh": True,
    "min_watermark": b"mark",
    "strictness": c.Strictness.LENIENT,
}
EVENTS: list[c.AnswerEvent] = [
    c.Evidence(documents=[HIT, HIT], info=INFO, condensed="How long is the wait?"),
    c.Evidence(documents=[], info=INFO),
    c.Delta("Three days.", True, ("number", "name")),
    c.Delta("Three days."),
    CITATION,
    c.Usage(
        prompt_tokens=1,
        completion_tokens=2,
        cost=0.25,
        retrieval_s=0.5,
        first_delta_s=0.75,
        total_s=1.5,
        attempts=[
            c.Attempt(backend="large", failure="timeout", seconds=1.0),
            c.Attempt(backend="small", failure="", seconds=0.5),
        ],
    ),
    c.Done(tokens=1, citations=2, evidence_probability=0.5, calibrated=False),
    *(
        c.Done(
            tokens=1,
            citations=2,
            evidence_probability=0.5,
            calibrated=True,
            truncated=True,
            finish=finish,
            dropped_sentences=3,
            dropped_markers=4,
            session=STATE,
            served_by=c.ServedBy(source=c.Source.FALLBACK, rung="extractive", reason="down"),
            not_sure=not_sure,
        )
        for finish, not_sure in product(c.Finish, (True, False))
    ),
    *(
        c.Refusal(
            reason=reason,
            topic_probability=0.25,
            evidence_probability=0.5,
            calibrated=True,
            message="Nothing answers it.",
            session=session,
        )
        for reason, session in product(c.RefusalReason, (STATE, None))
    ),
]


def _sent(question: c.Question) -> c.Question:
    return wire.question_from_proto(wire.question_to_proto(question, "default"))


def test_every_field_of_a_question_survives_alone_and_all_together() -> None:
    assert QUESTION.keys() == {field.name for field in dataclasses.fields(c.Question)}
    plain = c.Question(text="Why?", history=[])
    assert _sent(plain) == plain
    for name, value in QUESTION.items():
        changed: dict[str, Any] = {name: value}
        question = dataclasses.replace(plain, **changed)
        assert question != plain and _sent(question) == question, name
    everything: dict[str, Any] = QUESTION
    assert _sent(c.Question(**everything)) == c.Question(**everything)


def test_a_question_names_its_collection() -> None:
    assert wire.question_to_proto(c.Question(text="Why?"), "docs").collection == "docs"


@pytest.mark.parametrize("mode", c.SearchMode)
def test_modes_survive_and_unknown_ones_are_refused(mode: c.SearchMode) -> None:
    assert _sent(c.Question(text="Why?", mode=mode)).mode is mode
    with pytest.raises(InvalidRequest, match="mode"):
        wire.question_from_proto(
            generation_pb2.GenerateRequest(question="Why?", mode=99)  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_survive(event: c.AnswerEvent) -> None:
    assert wire.event_from_proto(wire.event_to_proto(event)) == event


def test_an_event_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InternalError, match="upgrade the client"):
        wire.event_from_proto(generation_pb2.GenerateResponse())


def test_verdicts_survive() -> None:
    checks = [c.CitationCheck(verdict, 3, 9) for verdict in c.Verdict]
    reply = c.VerifyReply(checks=checks, info=INFO)
    assert wire.verify_reply(wire.verify_response(reply)) == reply


@pytest.mark.parametrize("expire_time", [TIME, None])
def test_sessions_survive(expire_time: datetime | None) -> None:
    turns = [TURN, c.Turn("Why?", "")]
    session = c.Session(id="a", version=3, turns=turns, expire_time=expire_time)
    assert wire.session_from_proto(wire.session_to_proto(session)) == session
    assert wire.state_from_proto(wire.state_to_proto(STATE)) == STATE


def test_citations_have_the_field_names_of_the_wire() -> None:
    for record, message in (
        (c.Citation, generation_pb2.Citation),
        (c.CitationCheck, generation_pb2.CitationCheck),
    ):
        assert {one.name for one in dataclasses.fields(record)} == set(
            message.DESCRIPTOR.fields_by_name
        )


def test_a_citation_in_json_is_one_in_python() -> None:
    assert c.Citation(**encode(wire.citation_to_proto(CITATION))) == CITATION


def test_spans_are_read_by_their_old_names_too() -> None:
    assert (CITATION.start, CITATION.end) == (5, 8)
    check = c.CitationCheck(c.Verdict.MOVED, 3, 9)
    assert (check.start, check.end) == (3, 9)
