"""Questions, conversations, answers and citations: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from nearline import contract as c
from nearline.errors import InternalError, InvalidRequest
from nearline.v1 import generation_pb2
from nearline.wire.enums import (
    FINISH_OF,
    FINISHES,
    MODE_OF,
    MODES,
    REFUSAL_OF,
    REFUSALS,
    VERDICT_OF,
    VERDICTS,
    inverse,
    lookup,
    numbers_of,
)
from nearline.wire.filters import filter_from_proto, filter_to_proto
from nearline.wire.limits import BATCH, LIMITS, bounded
from nearline.wire.replies import (
    fill_hit,
    fill_info,
    fill_served_by,
    hit_from_proto,
    info_from_proto,
    served_by_from_proto,
)
from nearline.wire.values import same_fields, time_from_proto, timestamp


def event_to_proto(event: c.AnswerEvent) -> generation_pb2.GenerateResponse:
    """Returns the message of an event."""
    message = generation_pb2.GenerateResponse()
    match event:
        case c.Evidence():
            message.evidence.SetInParent()
            for hit in event.documents:
                fill_hit(message.evidence.documents.add(), hit)
            fill_info(message.evidence.info, event.info)
            message.evidence.condensed = event.condensed
        case c.Delta():
            message.delta.CopyFrom(
                generation_pb2.DeltaEvent(
                    text=event.text, unsupported=event.unsupported, problems=event.problems
                )
            )
        case c.Citation():
            message.citation.CopyFrom(citation_to_proto(event))
        case c.Usage():
            message.usage.CopyFrom(_usage_to_proto(event))
        case c.Done():
            done = message.done
            done.tokens, done.citations = event.tokens, event.citations
            done.evidence_probability = event.evidence_probability
            done.calibrated, done.truncated = event.calibrated, event.truncated
            done.finish = FINISHES[event.finish]
            done.dropped_sentences = event.dropped_sentences
            done.dropped_markers = event.dropped_markers
            done.not_sure = event.not_sure
            if event.session is not None:
                done.session.CopyFrom(state_to_proto(event.session))
            fill_served_by(done.served_by, event.served_by)
        case c.Refusal():
            session = None if event.session is None else state_to_proto(event.session)
            converted = {"reason": REFUSALS[event.reason], "session": session}
            refusal = generation_pb2.RefusalEvent(**same_fields(event, c.Refusal) | converted)
            message.refusal.CopyFrom(refusal)
    return message


def event_from_proto(message: generation_pb2.GenerateResponse) -> c.AnswerEvent:
    """Returns the event of a message.

    Raises: InternalError: this version does not know the kind of event.
    """
    kind = message.WhichOneof("event")
    if kind == "evidence":
        return c.Evidence(
            documents=[hit_from_proto(hit) for hit in message.evidence.documents],
            info=info_from_proto(message.evidence.info),
            condensed=message.evidence.condensed,
        )
    if kind == "delta":
        delta = message.delta
        return c.Delta(delta.text, delta.unsupported, tuple(delta.problems))
    if kind == "citation":
        return citation_from_proto(message.citation)
    if kind == "usage":
        return _usage_from_proto(message.usage)
    if kind == "done":
        done = message.done
        converted = {
            "finish": lookup(FINISH_OF, done.finish, "done.finish"),
            "session": state_from_proto(done.session) if done.HasField("session") else None,
            "served_by": served_by_from_proto(done.served_by),
        }
        return c.Done(**same_fields(done, c.Done) | converted)
    if kind == "refusal":
        refusal = message.refusal
        reason = lookup(REFUSAL_OF, refusal.reason, "refusal.reason")
        session = state_from_proto(refusal.session) if refusal.HasField("session") else None
        return c.Refusal(**same_fields(refusal, c.Refusal) | {"reason": reason, "session": session})
    raise InternalError("the service sent an event of an unknown kind; upgrade the client")


def citation_to_proto(citation: c.Citation) -> generation_pb2.Citation:
    """Returns the message of a citation."""
    return generation_pb2.Citation(**same_fields(citation, c.Citation))


def citation_from_proto(message: generation_pb2.Citation) -> c.Citation:
    """Returns the citation of a message."""
    return c.Citation(**same_fields(message, c.Citation))


def citations_from_proto(messages: Sequence[generation_pb2.Citation]) -> list[c.Citation]:
    """Returns the citations of messages. Raises: InvalidRequest: there are too many."""
    return [citation_from_proto(one) for one in bounded(messages, "citations", BATCH)]


def verify_response(reply: c.VerifyReply) -> generation_pb2.VerifyCitationResponse:
    """Returns the message of checked citations."""
    message = generation_pb2.VerifyCitationResponse()
    for check in reply.checks:
        message.checks.add(
            verdict=VERDICTS[check.verdict], char_start=check.char_start, char_end=check.char_end
        )
    fill_info(message.info, reply.info)
    return message


def verify_reply(message: generation_pb2.VerifyCitationResponse) -> c.VerifyReply:
    """Returns checked citations."""
    return c.VerifyReply(
        checks=[
            c.CitationCheck(
                lookup(VERDICT_OF, one.verdict, "verdict"), one.char_start, one.char_end
            )
            for one in message.checks
        ],
        info=info_from_proto(message.info),
    )


def _usage_to_proto(usage: c.Usage) -> generation_pb2.UsageEvent:
    attempts = [generation_pb2.Attempt(**same_fields(one, c.Attempt)) for one in usage.attempts]
    return generation_pb2.UsageEvent(**same_fields(usage, c.Usage) | {"attempts": attempts})


def _usage_from_proto(message: generation_pb2.UsageEvent) -> c.Usage:
    attempts = [c.Attempt(**same_fields(one, c.Attempt)) for one in message.attempts]
    return c.Usage(**same_fields(message, c.Usage) | {"attempts": attempts})


_REFUSE = generation_pb2.REFUSAL_POLICY_REFUSE
_ANSWER = generation_pb2.REFUSAL_POLICY_ANSWER
_UNSUPPORTED = numbers_of(c.Unsupported, generation_pb2.UnsupportedPolicy)
_STRICTNESS = numbers_of(c.Strictness, generation_pb2.Strictness)
_STRICTNESS_OF = inverse(_STRICTNESS)
_UNSUPPORTED_OF = inverse(_UNSUPPORTED) | {0: c.Unsupported.DROP}


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
        unsupported_policy=_UNSUPPORTED[question.unsupported],
        fresh=question.fresh,
        min_watermark=question.min_watermark,
        strictness=_STRICTNESS[question.strictness] if question.strictness else 0,  # type: ignore[arg-type]
    )


def question_from_proto(message: generation_pb2.GenerateRequest) -> c.Question:
    """Returns the question of a message; ranges are checked by the service.

    Raises: InvalidRequest: unknown enum number, a malformed filter, too many turns, or a time
        outside the years 1 to 9999.
    """
    plain = c.Question(text=message.question)
    history = bounded(message.history, "history", LIMITS["GenerateRequest.history"])
    return c.Question(
        text=message.question,
        filter=filter_from_proto(message.filter, "filter") if message.HasField("filter") else None,
        mode=lookup(MODE_OF, message.mode, "mode") if message.mode else None,
        max_tokens=message.max_tokens or plain.max_tokens,
        documents=message.documents or plain.documents,
        refuse=_refuses(message.refusal_policy),
        session_id=message.session_id,
        session_version=message.session_version,
        history=[turn_from_proto(turn, f"history[{at}]") for at, turn in enumerate(history)],
        backend=message.backend,
        temperature=message.temperature,
        unsupported=lookup(_UNSUPPORTED_OF, message.unsupported_policy, "unsupported_policy"),
        fresh=message.fresh,
        min_watermark=message.min_watermark,
        strictness=(
            lookup(_STRICTNESS_OF, message.strictness, "strictness") if message.strictness else None
        ),
    )


def turn_to_proto(turn: c.Turn) -> generation_pb2.Turn:
    """Returns the message of a turn."""
    return generation_pb2.Turn(**same_fields(turn, c.Turn) | {"time": timestamp(turn.time)})


def _refuses(policy: int) -> bool:
    if policy not in (0, _REFUSE, _ANSWER):
        raise InvalidRequest(
            f"refusal_policy {policy} is not known; use one of {_REFUSE} (refuse), {_ANSWER} "
            "(answer)",
            field="refusal_policy",
        )
    return policy != _ANSWER


def turn_from_proto(message: generation_pb2.Turn, field: str = "turn") -> c.Turn:
    """Returns the turn of a message.

    Raises: InvalidRequest: a time outside the years 1 to 9999.
    """
    time = time_from_proto(message.time, f"{field}.time") if message.HasField("time") else None
    return c.Turn(**same_fields(message, c.Turn) | {"time": time})


def session_to_proto(session: c.Session) -> generation_pb2.GetSessionResponse:
    """Returns the message of a session."""
    return generation_pb2.GetSessionResponse(
        session_id=session.id,
        version=session.version,
        turns=map(turn_to_proto, session.turns),
        expire_time=timestamp(session.expire_time),
    )


def session_from_proto(message: generation_pb2.GetSessionResponse) -> c.Session:
    """Returns the session of a message."""
    return c.Session(
        id=message.session_id,
        version=message.version,
        turns=[turn_from_proto(turn) for turn in message.turns],
        expire_time=message.expire_time.ToDatetime(UTC)
        if message.HasField("expire_time")
        else None,
    )


def state_to_proto(state: c.SessionState) -> generation_pb2.SessionState:
    """Returns the message of a session's state."""
    return generation_pb2.SessionState(
        session_id=state.id, version=state.version, saved=state.saved, reason=state.reason
    )


def state_from_proto(message: generation_pb2.SessionState) -> c.SessionState:
    """Returns the state of a session of a message."""
    return c.SessionState(
        id=message.session_id, version=message.version, saved=message.saved, reason=message.reason
    )
