"""Interactions for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nearline.contract.recommendations import Interaction
from retrieval.users.records import UserState

START = datetime(2024, 11, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    """Returns a time so many seconds after the first."""
    return START + timedelta(seconds=second)


def seen(
    item_id: str, second: float, user_id: str = "u", *, session_id: str = "", event_id: str = ""
) -> Interaction:
    """Returns a view of an item."""
    return Interaction(
        item_id=item_id,
        user_id=user_id,
        session_id=session_id,
        time=at(second),
        event_id=event_id,
    )


def items(state: UserState) -> list[str]:
    """Returns the items of a state, newest first."""
    return [event.item_id for event in state.events]
