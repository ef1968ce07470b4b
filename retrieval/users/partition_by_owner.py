"""Partitions the interactions of a request by user and session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nearline.contract.recommendations import Interaction
from nearline.times import from_us, to_us
from retrieval.users.dedup_window import event_digest
from retrieval.users.keys import OwnerKeys, session_keys, user_keys
from retrieval.users.log_entries import encode_entry


class OwnerInteraction(NamedTuple):
    """An interaction of one owner.

    digest: Digest of the event id, b"" without one. time_us: Microseconds since 1970.
    words: The log entry; empty for a session if the user has the entry.
    """

    item_id: str
    kind: str
    time_us: int
    weight: float | None
    digest: bytes
    words: Sequence[str]


class OwnerBatch(NamedTuple):
    """A user or a session, with new interactions in the order of the request."""

    keys: OwnerKeys
    ttl_s: int
    interactions: list[OwnerInteraction]


def partition_by_owner(
    collection: str,
    interactions: Sequence[Interaction],
    idempotency_key: str,
    now_us: int,
    ttl_s: tuple[int, int],
) -> list[OwnerBatch]:
    """Partitions valid interactions by owner, users first.

    Args:
        now_us: Time of interactions without one.
        ttl_s: Seconds to keep a user and a session.
    """
    users: dict[str, OwnerBatch] = {}
    sessions: dict[str, OwnerBatch] = {}
    for place, one in enumerate(interactions):
        time = from_us(now_us) if one.time is None else one.time
        event_id = one.event_id or (f"{idempotency_key}/{place}" if idempotency_key else "")
        digest = event_digest(event_id) if event_id else b""
        words = encode_entry(one, to_us(time), event_id)
        entry = OwnerInteraction(one.item_id, one.kind, to_us(time), one.weight, digest, words)
        if one.user_id:
            if one.user_id not in users:
                users[one.user_id] = OwnerBatch(user_keys(collection, one.user_id), ttl_s[0], [])
            users[one.user_id].interactions.append(entry)
            entry = entry._replace(words=())
        if one.session_id:
            if one.session_id not in sessions:
                keys = session_keys(collection, one.session_id)
                sessions[one.session_id] = OwnerBatch(keys, ttl_s[1], [])
            sessions[one.session_id].interactions.append(entry)
    return [*users.values(), *sessions.values()]
