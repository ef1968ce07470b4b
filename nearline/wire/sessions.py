"""Conversations: contract records to protobuf and back."""

from __future__ import annotations

from datetime import UTC

from nearline import contract as c
from nearline.v1 import generation_pb2
from nearline.wire.times import timestamp
from nearline.wire.values import same_fields


def turn_to_proto(turn: c.Turn) -> generation_pb2.Turn:
    """Returns the message of a turn."""
    return generation_pb2.Turn(**same_fields(turn, c.Turn) | {"time": timestamp(turn.time)})


def turn_from_proto(message: generation_pb2.Turn) -> c.Turn:
    """Returns the turn of a message."""
    time = message.time.ToDatetime(UTC) if message.HasField("time") else None
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
