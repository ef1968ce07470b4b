"""Exports a user's interactions: those of the log, and those that only the history has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nearline.contract.recommendations import Interaction
from nearline.times import from_us, to_us
from retrieval.users.records import UserEvent


def export_interactions(
    user_id: str, logged: Sequence[Interaction], events: Sequence[UserEvent]
) -> list[Interaction]:
    """Returns the interactions of a user, newest first, each once.

    Args:
        logged: Interactions of the log, oldest first; all have a time.
        events: The history.
    """
    exported = list(reversed(logged))
    known = Counter((one.item_id, one.kind, _time_us(one) // 1_000_000) for one in exported)
    for event in events:
        key = (event.item_id, event.kind, event.time_us // 1_000_000)
        if known[key]:
            known[key] -= 1
            continue
        exported.append(event_to_interaction(user_id, event))
    return sorted(exported, key=_time_us, reverse=True)


def event_to_interaction(user_id: str, event: UserEvent) -> Interaction:
    """Returns an event of a user's history as an interaction."""
    return Interaction(
        item_id=event.item_id,
        user_id=user_id,
        kind=event.kind,
        time=from_us(event.time_us),
        weight=event.weight,
    )


def _time_us(interaction: Interaction) -> int:
    assert interaction.time is not None
    return to_us(interaction.time)
