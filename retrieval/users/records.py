"""Records of users and sessions: events, state, log entries and deletions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from types import MappingProxyType
from typing import NamedTuple, overload

from nearline.contract import Attributes
from nearline.times import SECOND_US

# The feature that errors name if Redis is away.
NEEDED_BY = "user states"


class MadeUp(NamedTuple):
    """Items of a request that do not exist; with new kinds, they count for a tenant.

    tenant: Empty for a caller without a limit.
    """

    tenant: str = ""
    items: Collection[str] = ()


ALL_EXIST = MadeUp()


class UserEvent(NamedTuple):
    """An interaction with an item.

    time_us: Microseconds since 1970, to the second. weight: > 0; None uses the weight of the kind.
    """

    item_id: str
    time_us: int
    kind: str
    weight: float | None


class EventColumns(Sequence[UserEvent]):
    """Columns of events, newest first; most lists need only the items.

    Args:
        item_ids, seconds, kinds, weights: One value per event; seconds since 1970.
    """

    __slots__ = ("_seconds", "_weights", "item_ids", "kinds")

    def __init__(
        self,
        item_ids: Sequence[str],
        seconds: Sequence[int],
        kinds: Sequence[str],
        weights: Sequence[float | None],
    ) -> None:
        self.item_ids = item_ids
        self._seconds = seconds
        self.kinds = kinds
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
                self.item_ids[at], self._seconds[at], self.kinds[at], self._weights[at]
            )
        time_us = self._seconds[at] * SECOND_US
        return UserEvent(self.item_ids[at], time_us, self.kinds[at], self._weights[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def event_items(events: Sequence[UserEvent]) -> Sequence[str]:
    """Returns the item of each event, in order."""
    return events.item_ids if isinstance(events, EventColumns) else [one.item_id for one in events]


def items_and_kinds(events: Sequence[UserEvent]) -> Iterable[tuple[str, str]]:
    """Returns the item and the kind of each event, in order."""
    if isinstance(events, EventColumns):
        return zip(events.item_ids, events.kinds, strict=True)
    return [(one.item_id, one.kind) for one in events]


class UserState(NamedTuple):
    """The state of a user and a session, as a recommendation reads it.

    events: Events of both, each once, newest first. deleted_us: When the user was last deleted; 0:
    never. attributes: Of the user.
    """

    events: Sequence[UserEvent]
    deleted_us: int
    attributes: Attributes = MappingProxyType({})


EMPTY_STATE = UserState((), 0)


class StoredState(NamedTuple):
    """The state of a user and a session as Redis holds it; equal if nothing was recorded since.

    user, session, attributes: Encoded; empty without any. deleted_us: See `UserState`.
    """

    user: bytes
    session: bytes
    deleted_us: int
    attributes: bytes = b""


NO_STATE = StoredState(b"", b"", 0)


class DeletionResult(NamedTuple):
    """The outcome of a deletion.

    deleted_us: Its time. interactions, log_entries, sessions, attributes: Number of deleted events
    of the history, of log entries, of sessions that had not expired, and of attributes.
    """

    deleted_us: int
    interactions: int
    log_entries: int
    sessions: int
    attributes: int = 0


class LoggedInteraction(NamedTuple):
    """An interaction of the log, for the next build; missing ids are empty."""

    user_id: str
    session_id: str
    item_id: str
    kind: str
    time_us: int
    weight: float | None
    list_id: str = ""
