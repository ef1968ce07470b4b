"""A request to record, dealt to the users and sessions that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nearline.contract.recommendations import Interaction
from nearline.times import from_us, to_us
from retrieval.users.dedup_window import event_digest
from retrieval.users.keys import OwnerKeys, session_keys, user_keys
from retrieval.users.log_entries import encode_entry


class OwnerInteraction(NamedTuple):
    """An interaction as one owner gets it.

    digest: Of its event id; b"": it has none. time_us: Microseconds since 1970.
    words: Its log entry; empty for a session whose user has the entry.
    """

    item_id: str
    kind: str
    time_us: int
    weight: float | None
    digest: bytes
    words: Sequence[str]


class OwnerBatch(NamedTuple):
    """A user or a session, and what is new of it, in the order of the request."""

    keys: OwnerKeys
    ttl_s: int
    lines: list[OwnerInteraction]


def partition_by_owner(
    collection: str,
    interactions: Sequence[Interaction],
    idempotency_key: str,
    now_us: int,
    ttl_s: tuple[int, int],
) -> list[OwnerBatch]:
    """Deals checked interactions to their owners, users first.

    Args:
        collection, interactions, idempotency_key: Of the request.
        now_us: Time of those without one.
        ttl_s: Seconds to keep a user, and a session.
    """
    users: dict[str, OwnerBatch] = {}
    sessions: dict[str, OwnerBatch] = {}
    for place, one in enumerate(interactions):
        time = from_us(now_us) if one.time is None else one.time
        event_id = one.event_id or (f"{idempotency_key}/{place}" if idempotency_key else "")
        digest = event_digest(event_id) if event_id else b""
        words = encode_entry(one, to_us(time), event_id)
        line = OwnerInteraction(one.item_id, one.kind, to_us(time), one.weight, digest, words)
        if one.user_id:
            if one.user_id not in users:
                users[one.user_id] = OwnerBatch(user_keys(collection, one.user_id), ttl_s[0], [])
            users[one.user_id].lines.append(line)
            line = line._replace(words=())
        if one.session_id:
            if one.session_id not in sessions:
                keys = session_keys(collection, one.session_id)
                sessions[one.session_id] = OwnerBatch(keys, ttl_s[1], [])
            sessions[one.session_id].lines.append(line)
    return [*users.values(), *sessions.values()]
