"""Questions and events of answers: contract records to protobuf and back."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import InternalError
from nearline.v1 import generation_pb2
from nearline.wire.enums import (
    MODE_OF,
    MODES,
    REFUSAL_OF,
    REFUSALS,
    VERDICT_OF,
    VERDICTS,
    lookup,
)
from nearline.wire.filters import filter_from_proto, filter_to_proto
from nearline.wire.replies import (
    fill_hit,
    fill_info,
    fill_served_by,
    hit_from_proto,
    info_from_proto,
    served_by_from_proto,
)


def question_to_proto(question: c.Question, collection: str) -> generation_pb2.GenerateRequest:
    """Gives the message of a question."""
    return generation_pb2.GenerateRequest(
        collection=collection,
        question=question.text,
        filter=None if question.filter is None else filter_to_proto(question.filter),
        mode=MODES[question.mode] if question.mode else 0,  # type: ignore[arg-type]
        max_tokens=question.max_tokens,
        documents=question.documents,
        refusal_policy=(
            generation_pb2.REFUSAL_POLICY_REFUSE
            if question.refuse
            else generation_pb2.REFUSAL_POLICY_ANSWER
        ),
    )


def question_from_proto(message: generation_pb2.GenerateRequest) -> c.Question:
    """Gives the question of a message; ranges are checked by the service.

    Raises: InvalidRequest: unknown enum number, a malformed filter.
    """
    plain = c.Question(text=message.question)
    return c.Question(
        text=message.question,
        filter=filter_from_proto(message.filter, "filter") if message.HasField("filter") else None,
        mode=lookup(MODE_OF, message.mode, "mode") if message.mode else None,
        max_tokens=message.max_tokens or plain.max_tokens,
        documents=message.documents or plain.documents,
        refuse=message.refusal_policy != generation_pb2.REFUSAL_POLICY_ANSWER,
    )


def event_to_proto(event: c.AnswerEvent) -> generation_pb2.GenerateResponse:
    """Gives the message of an event."""
    message = generation_pb2.GenerateResponse()
    match event:
        case c.Evidence():
            message.evidence.SetInParent()
            for hit in event.documents:
                fill_hit(message.evidence.documents.add(), hit)
            fill_info(message.evidence.info, event.info)
        case c.Delta():
            message.delta.text = event.text
        case c.Citation():
            message.citation.CopyFrom(citation_to_proto(event))
        case c.Done():
            done = message.done
            done.tokens, done.citations = event.tokens, event.citations
            done.evidence_probability = event.evidence_probability
            done.calibrated, done.truncated = event.calibrated, event.truncated
            fill_served_by(done.served_by, event.served_by)
        case c.Refusal():
            message.refusal.CopyFrom(
                generation_pb2.RefusalEvent(
                    reason=REFUSALS[event.reason],
                    topic_probability=event.topic_probability,
                    evidence_probability=event.evidence_probability,
                    calibrated=event.calibrated,
                    message=event.message,
                )
            )
    return message


def event_from_proto(message: generation_pb2.GenerateResponse) -> c.AnswerEvent:
    """Gives the event of a message.

    Raises: InternalError: a kind of event that this version does not know.
    """
    kind = message.WhichOneof("event")
    if kind == "evidence":
        return c.Evidence(
            documents=[hit_from_proto(hit) for hit in message.evidence.documents],
            info=info_from_proto(message.evidence.info),
        )
    if kind == "delta":
        return c.Delta(message.delta.text)
    if kind == "citation":
        return citation_from_proto(message.citation)
    if kind == "done":
        done = message.done
        return c.Done(
            tokens=done.tokens,
            citations=done.citations,
            evidence_probability=done.evidence_probability,
            calibrated=done.calibrated,
            truncated=done.truncated,
            served_by=served_by_from_proto(done.served_by),
        )
    if kind == "refusal":
        refusal = message.refusal
        return c.Refusal(
            reason=lookup(REFUSAL_OF, refusal.reason, "refusal.reason"),
            topic_probability=refusal.topic_probability,
            evidence_probability=refusal.evidence_probability,
            calibrated=refusal.calibrated,
            message=refusal.message,
        )
    raise InternalError("the service sent an event of an unknown kind; upgrade the client")


def citation_to_proto(citation: c.Citation) -> generation_pb2.Citation:
    """Gives the message of a citation."""
    return generation_pb2.Citation(
        number=citation.number,
        document_id=citation.document_id,
        chunk=citation.chunk,
        char_start=citation.start,
        char_end=citation.end,
        text_hash=citation.text_hash,
        snapshot_id=citation.snapshot_id,
        title=citation.title,
    )


def citation_from_proto(message: generation_pb2.Citation) -> c.Citation:
    """Gives the citation of a message."""
    return c.Citation(
        number=message.number,
        document_id=message.document_id,
        chunk=message.chunk,
        start=message.char_start,
        end=message.char_end,
        text_hash=message.text_hash,
        snapshot_id=message.snapshot_id,
        title=message.title,
    )


def verify_response(reply: c.VerifyReply) -> generation_pb2.VerifyCitationResponse:
    """Gives the message of checked citations."""
    message = generation_pb2.VerifyCitationResponse()
    for check in reply.checks:
        message.checks.add(
            verdict=VERDICTS[check.verdict], char_start=check.start, char_end=check.end
        )
    fill_info(message.info, reply.info)
    return message


def verify_reply(message: generation_pb2.VerifyCitationResponse) -> c.VerifyReply:
    """Gives checked citations."""
    return c.VerifyReply(
        checks=[
            c.CitationCheck(
                lookup(VERDICT_OF, one.verdict, "verdict"), one.char_start, one.char_end
            )
            for one in message.checks
        ],
        info=info_from_proto(message.info),
    )
