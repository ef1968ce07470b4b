"""Whom a list is for: what they did, from Redis and from the snapshot, as one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from retrieval.behaviour.histories import NEWEST
from retrieval.behaviour.history import History
from retrieval.behaviour.learned import Learned
from retrieval.users.records import EMPTY, Event, UserState

_SECOND_US = 1_000_000
NOBODY = History(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float32))


class Subject:
    """What is known of whom a list is for.

    Args:
        learned: What the snapshot learned; None: nothing.
        events: Newest first, items that the snapshot does not know included; of those that it
            learned from the kind is not known, and empty.
        older: More events.
    """

    def __init__(
        self,
        learned: Learned | None = None,
        events: Sequence[Event] = (),
        older: Sequence[Event] = (),
    ) -> None:
        self._learned = learned
        self.events = events
        self.older = older

    @cached_property
    def history(self) -> History:
        """All events with items that the snapshot knows; many lists can do without."""
        learned = self._learned
        if learned is None:
            return NOBODY
        weights = learned.kind_weights
        known = [
            (number, one.time_us, _weight(one, weights))
            for one in chain(self.events, self.older)
            if (number := learned.number_of(one.item_id)) is not None
        ]
        if not known:
            return NOBODY
        items, times, counts = zip(*known, strict=True)
        return History(
            np.array(items, np.int32), np.array(times, np.int64), np.array(counts, np.float32)
        )


def subject_of(learned: Learned | None, user_id: str, state: UserState = EMPTY) -> Subject:
    """Joins what was recorded of a user with what the snapshot learned from.

    What was recorded may be among what was learned from, too: an event of the same item in the same
    second is the same one.

    Args:
        learned: What the snapshot learned; None: nothing.
        user_id: Empty: nobody that the snapshot could know.
        state: What was recorded of the user and of the session.
    """
    events = list(state.events)
    older: list[Event] = []
    if learned is not None and user_id:
        recorded = {(one.item_id, one.time_us // _SECOND_US) for one in events}
        events += [
            one
            for one in learned_events(learned, user_id, state.deleted_us)
            if (one.item_id, one.time_us // _SECOND_US) not in recorded
        ]
        events.sort(key=lambda one: -one.time_us)
        older = events[NEWEST:]
        del events[NEWEST:]
    return Subject(learned, events, older)


def learned_events(learned: Learned, user_id: str, deleted_us: int) -> list[Event]:
    """Gives what a snapshot learned from of a user, newest first; its kinds are not known.

    Args:
        deleted_us: When the user was deleted last; what was before that is not used. 0: never.
    """
    history = learned.history_of(user_id)
    if history is None:
        return []
    columns = (history.items.tolist(), history.time_us.tolist(), history.weight.tolist())
    return [
        Event(learned.ids[item], time_us, "", weight)
        for item, time_us, weight in zip(*columns, strict=True)
        if not deleted_us or time_us > deleted_us
    ]


def _weight(event: Event, of_kinds: Mapping[str, float]) -> float:
    return of_kinds.get(event.kind, 1.0) if event.weight is None else event.weight
