"""Encodes and decodes entries of the log of interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline.contract.recommendations import Interaction
from nearline.times import from_us
from retrieval.users.records import LoggedInteraction


def encode_entry(interaction: Interaction, time_us: int, event_id: str) -> Sequence[str]:
    """Returns an entry as alternating names and values, user first; empty values are omitted."""
    weight, position = interaction.weight, interaction.position
    fields = {
        "user": interaction.user_id,
        "session": interaction.session_id,
        "item": interaction.item_id,
        "kind": interaction.kind,
        "time": str(time_us),
        "weight": "" if weight is None else repr(float(weight)),
        "list": interaction.list_id,
        "position": "" if position is None else str(position),
        "event": event_id,
    }
    return [word for name, value in fields.items() if value for word in (name, value)]


def decode_logged_interaction(fields: Mapping[bytes, bytes]) -> LoggedInteraction:
    """Returns the fields of an entry that a build needs."""
    return LoggedInteraction(
        fields.get(b"user", b"").decode(),
        fields.get(b"session", b"").decode(),
        fields[b"item"].decode(),
        fields[b"kind"].decode(),
        int(fields[b"time"]),
        float(fields[b"weight"]) if b"weight" in fields else None,
    )


def decode_interaction(fields: Mapping[bytes, bytes]) -> Interaction:
    """Returns all fields of an entry."""
    logged = decode_logged_interaction(fields)
    return Interaction(
        item_id=logged.item_id,
        user_id=logged.user_id,
        session_id=logged.session_id,
        kind=logged.kind,
        time=from_us(logged.time_us),
        weight=logged.weight,
        list_id=fields.get(b"list", b"").decode(),
        position=int(fields[b"position"]) if b"position" in fields else None,
        event_id=fields.get(b"event", b"").decode(),
    )
