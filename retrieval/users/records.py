"""What is known of a user or a session, and what is left when it was erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

from nearline.times import SECOND_US

# For errors: what does not work without Redis.
NEEDED_BY = "user states"


class UserEvent(NamedTuple):
    """Something that happened to an item.

    time_us: Microseconds since 1970, to the second. weight: > 0; None: that of the kind.
    """

    item_id: str
    time_us: int
    kind: str
    weight: float | None


class EventColumns(Sequence[UserEvent]):
    """Events in columns, newest first; most lists ask for nothing but the items.

    Args:
        item_ids, seconds, kinds, weights: One of each for each event; seconds since 1970.
    """

    __slots__ = ("_kinds", "_seconds", "_weights", "item_ids")

    def __init__(
        self,
        item_ids: Sequence[str],
        seconds: Sequence[int],
        kinds: Sequence[str],
        weights: Sequence[float | None],
    ) -> None:
        self.item_ids = item_ids
        self._seconds = seconds
        self._kinds = kinds
        self._weights = weights

    def __len__(self) -> int:
        return len(self.item_ids)

    @overload
    def __getitem__(self, at: int) -> UserEvent: ...
    @overload
    def __getitem__(self, at: slice) -> EventColumns: ...
    def __getitem__(self, at: int | slice) -> UserEvent | EventColumns:
        if isinstance(at, slice):
            return EventColumns(
                self.item_ids[at], self._seconds[at], self._kinds[at], self._weights[at]
            )
        time_us = self._seconds[at] * SECOND_US
        return UserEvent(self.item_ids[at], time_us, self._kinds[at], self._weights[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def event_items(events: Sequence[UserEvent]) -> Sequence[str]:
    """Returns the items of events, in order."""
    return events.item_ids if isinstance(events, EventColumns) else [one.item_id for one in events]


class UserState(NamedTuple):
    """What a recommendation reads of a user and a session.

    events: Of both, each once, newest first. deleted_us: When the user was deleted last; 0: never.
    """

    events: Sequence[UserEvent]
    deleted_us: int


EMPTY_STATE = UserState((), 0)


class DeletionResult(NamedTuple):
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
