"""Questions: contract records to protobuf and back."""

from __future__ import annotations

from nearline import contract as c
from nearline.v1 import generation_pb2
from nearline.wire.enums import MODE_OF, MODES, lookup
from nearline.wire.filters import filter_from_proto, filter_to_proto
from nearline.wire.sessions import turn_from_proto, turn_to_proto

_REFUSE = generation_pb2.REFUSAL_POLICY_REFUSE
_ANSWER = generation_pb2.REFUSAL_POLICY_ANSWER
_DROP = generation_pb2.UNSUPPORTED_POLICY_DROP
_MARK = generation_pb2.UNSUPPORTED_POLICY_MARK


def question_to_proto(question: c.Question, collection: str) -> generation_pb2.GenerateRequest:
    """Returns the message of a question."""
    return generation_pb2.GenerateRequest(
        collection=collection,
        question=question.text,
        filter=None if question.filter is None else filter_to_proto(question.filter),
        mode=MODES[question.mode] if question.mode else 0,  # type: ignore[arg-type]
        max_tokens=question.max_tokens,
        documents=question.documents,
        refusal_policy=_REFUSE if question.refuse else _ANSWER,
        session_id=question.session_id,
        session_version=question.session_version,
        history=map(turn_to_proto, question.history),
        backend=question.backend,
        temperature=question.temperature,
        unsupported_policy=_MARK if question.unsupported is c.Unsupported.MARK else _DROP,
        fresh=question.fresh,
    )


def question_from_proto(message: generation_pb2.GenerateRequest) -> c.Question:
    """Returns the question of a message; ranges are checked by the service.

    Raises: InvalidRequest: unknown enum number, a malformed filter.
    """
    plain = c.Question(text=message.question)
    marked = message.unsupported_policy == _MARK
    return c.Question(
        text=message.question,
        filter=filter_from_proto(message.filter, "filter") if message.HasField("filter") else None,
        mode=lookup(MODE_OF, message.mode, "mode") if message.mode else None,
        max_tokens=message.max_tokens or plain.max_tokens,
        documents=message.documents or plain.documents,
        refuse=message.refusal_policy != _ANSWER,
        session_id=message.session_id,
        session_version=message.session_version,
        history=[turn_from_proto(turn) for turn in message.history],
        backend=message.backend,
        temperature=message.temperature,
        unsupported=c.Unsupported.MARK if marked else c.Unsupported.DROP,
        fresh=message.fresh,
    )
