"""User states in plain lists: the model that those in Redis are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nearline.contract.recommendations import Interaction, RecordReply
from nearline.times import to_us
from retrieval.users.records import LoggedInteraction, UserEvent


class Owner(NamedTuple):
    """A user or a session."""

    kind: str
    id: str


class PlainStates:
    """What `UserStates` does to one collection, without time passing."""

    def __init__(self, ring: int) -> None:
        self.ring = ring
        self.flush()

    def flush(self) -> None:
        """Forgets everything."""
        self.events: dict[Owner, list[UserEvent]] = {}
        self.known: set[tuple[Owner, str]] = set()
        self.log: list[Interaction] = []
        self.deleted: set[str] = set()

    def record(self, interactions: Sequence[Interaction], key: str) -> RecordReply:
        """Records interactions that all have a time."""
        fresh: dict[Owner, list[Interaction]] = {}
        duplicates = 0
        for place, one in enumerate(interactions):
            event_id = one.event_id or (f"{key}/{place}" if key else "")
            owners = [
                *([Owner("user", one.user_id)] if one.user_id else []),
                *([Owner("session", one.session_id)] if one.session_id else []),
            ]
            for owner in owners:
                if (owner, event_id) in self.known:
                    duplicates += owner == owners[0]
                    continue
                if event_id:
                    self.known.add((owner, event_id))
                fresh.setdefault(owner, []).append(one)
                if owner == owners[0]:
                    self.log.append(one)
        for owner, new in fresh.items():
            ordered = sorted(reversed(new), key=time_us, reverse=True)
            events = [*map(event_of, ordered), *self.events.get(owner, [])]
            self.events[owner] = newest_first(events)[: self.ring]
        return RecordReply(len(interactions) - duplicates, duplicates)

    def read(self, user_id: str, session_id: str) -> list[UserEvent]:
        """Returns the events of both."""
        mine = self.events.get(Owner("user", user_id), [])
        others = self.events.get(Owner("session", session_id), [])
        return newest_first([*mine, *(one for one in others if one not in mine)])[: self.ring]

    def delete(self, user_id: str) -> tuple[int, int, int]:
        """Erases a user; gives how many interactions, log entries and sessions."""
        user = Owner("user", user_id)
        gone = [one for one in self.log if one.user_id == user_id]
        named = {Owner("session", one.session_id) for one in gone if one.session_id}
        sessions = named & self.events.keys()
        interactions = len(self.events.get(user, []))
        for owner in (user, *named):
            self.events.pop(owner, None)
        self.known = {one for one in self.known if one[0] not in {user, *named}}
        self.log = [one for one in self.log if one.user_id != user_id]
        self.deleted.add(user_id)
        return interactions, len(gone), len(sessions)

    def logged(self) -> list[LoggedInteraction]:
        """Returns what the log has."""
        return [
            LoggedInteraction(
                one.user_id, one.session_id, one.item_id, one.kind, time_us(one), one.weight
            )
            for one in self.log
        ]


def time_us(interaction: Interaction) -> int:
    """Returns the time of an interaction that has one."""
    assert interaction.time is not None
    return to_us(interaction.time)


def event_of(one: Interaction) -> UserEvent:
    """Returns an interaction as a history has it: to the second."""
    second = time_us(one) // 1_000_000
    return UserEvent(one.item_id, second * 1_000_000, one.kind, one.weight)


def newest_first(events: Sequence[UserEvent]) -> list[UserEvent]:
    """Sorts by time; those of one time stay in their order."""
    return sorted(events, key=lambda event: event.time_us, reverse=True)
