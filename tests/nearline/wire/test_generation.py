"""Questions, events of answers and conversations survive conversion to protobuf and back."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.json_encoder import encode
from nearline import contract as c
from nearline.errors import InternalError
from nearline.v1 import generation_pb2
from nearline.wire import generation as wire
from tests.nearline.wire.full_records import FullRecords, same


def test_a_question_names_its_collection() -> None:
    assert wire.question_to_proto(c.Question(text="Why?"), "docs").collection == "docs"


LEAST = FullRecords(least=True)


@pytest.mark.parametrize(
    "event",
    [
        *(LEAST.of(one) for one in (c.Evidence, c.Delta, c.Usage)),
        *(dataclasses.replace(LEAST.of(c.Done), finish=one) for one in c.Finish),
        *(dataclasses.replace(LEAST.of(c.Refusal), reason=one) for one in c.RefusalReason),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_survive_with_few_fields(event: c.AnswerEvent) -> None:
    assert same(wire.event_from_proto(wire.event_to_proto(event)), event)


def test_an_event_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InternalError, match="upgrade the client"):
        wire.event_from_proto(generation_pb2.GenerateResponse())


def test_citations_have_the_field_names_of_the_wire() -> None:
    for record, message in (
        (c.Citation, generation_pb2.Citation),
        (c.CitationCheck, generation_pb2.CitationCheck),
    ):
        assert {one.name for one in dataclasses.fields(record)} == set(
            message.DESCRIPTOR.fields_by_name
        )


def test_a_citation_in_json_is_one_in_python() -> None:
    citation = FullRecords().of(c.Citation)
    assert c.Citation(**encode(wire.citation_to_proto(citation))) == citation


def test_spans_are_read_by_their_old_names_too() -> None:
    citation = FullRecords().of(c.Citation)
    assert (citation.start, citation.end) == (citation.char_start, citation.char_end)
    check = c.CitationCheck(c.Verdict.MOVED, 3, 9)
    assert (check.start, check.end) == (3, 9)
