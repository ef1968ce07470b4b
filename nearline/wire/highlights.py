"""Highlights of hits: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable

from nearline import contract as c
from nearline.v1 import retrieval_pb2


def highlighting_from_proto(message: retrieval_pb2.Highlighting) -> c.Highlighting:
    """Returns how hits are highlighted; the service checks the range."""
    return c.Highlighting(message.passage_chars or c.DEFAULT_PASSAGE_CHARACTERS)


def highlights_to_proto(highlights: c.Highlights) -> retrieval_pb2.Highlights:
    """Returns the message of the highlights of a hit."""
    message = retrieval_pb2.Highlights(title=spans_to_proto(highlights.title))
    passage = highlights.passage
    if passage is not None:
        message.passage.CopyFrom(
            retrieval_pb2.Passage(
                start=passage.start,
                end=passage.end,
                text=passage.text,
                spans=spans_to_proto(passage.spans),
            )
        )
    return message


def highlights_from_proto(message: retrieval_pb2.Highlights) -> c.Highlights:
    """Returns the highlights of a message."""
    passage = None
    if message.HasField("passage"):
        found = message.passage
        passage = c.Passage(
            start=found.start, end=found.end, text=found.text, spans=spans_from_proto(found.spans)
        )
    return c.Highlights(title=spans_from_proto(message.title), passage=passage)


def spans_to_proto(spans: Iterable[c.TextSpan]) -> list[retrieval_pb2.TextSpan]:
    """Returns the messages of spans."""
    return [retrieval_pb2.TextSpan(start=start, end=end) for start, end in spans]


def spans_from_proto(messages: Iterable[retrieval_pb2.TextSpan]) -> tuple[c.TextSpan, ...]:
    """Returns the spans of messages."""
    return tuple((span.start, span.end) for span in messages)
