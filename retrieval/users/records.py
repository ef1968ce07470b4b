"""What is known of a user or a session, and what is left when it was erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# For errors: what does not work without Redis.
NEEDED_BY = "user states"


class Event(NamedTuple):
    """Something that happened to an item.

    time_us: Microseconds since 1970, to the second. weight: > 0; None: that of the kind.
    """

    item_id: str
    time_us: int
    kind: str
    weight: float | None


class UserState(NamedTuple):
    """What a recommendation reads of a user and a session.

    events: Of both, each once, newest first. deleted_us: When the user was deleted last; 0: never.
    """

    events: Sequence[Event]
    deleted_us: int


EMPTY = UserState((), 0)


class Erased(NamedTuple):
    """What became of a deletion.

    deleted_us: When. interactions: In the user's history. log_entries: In the log of interactions.
    sessions: Those of the user that still lived.
    """

    deleted_us: int
    interactions: int
    log_entries: int
    sessions: int


class LoggedInteraction(NamedTuple):
    """An interaction as the log has it for the next build; ids are empty where there is none."""

    user_id: str
    session_id: str
    item_id: str
    kind: str
    time_us: int
    weight: float | None
