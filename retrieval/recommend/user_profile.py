"""Whom a list is for: what they did, from Redis and from the snapshot, as one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from nearline.times import SECOND_US
from retrieval.behaviour.history import EMPTY_HISTORY, History
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.user_histories import MAX_HISTORY_EVENTS
from retrieval.recommend.policies import Policy, seen_items
from retrieval.users.records import EMPTY_STATE, UserEvent, UserState, event_items


class UserProfile:
    """What is known of whom a list is for.

    What was recorded may be among what was learned from, too: an event of the same item in the same
    second is the same one.

    Args:
        learned: What the snapshot learned; None: nothing.
        recorded: What was recorded, newest first, items that the snapshot does not know included.
        before: What the snapshot learned from.
    """

    def __init__(
        self,
        learned: BehaviourModel | None = None,
        recorded: Sequence[UserEvent] = (),
        before: History = EMPTY_HISTORY,
    ) -> None:
        self._learned = learned
        self._recorded = recorded
        self._before = before

    @property
    def is_known(self) -> bool:
        """Returns whether anything is known."""
        return bool(self._recorded) or len(self._before.items) > 0

    @cached_property
    def _all(self) -> Sequence[UserEvent]:
        if self._learned is None:
            return self._recorded
        recorded = {(one.item_id, one.time_us // SECOND_US) for one in self._recorded}
        events = [
            *self._recorded,
            *(
                one
                for one in history_to_events(self._learned, self._before)
                if (one.item_id, one.time_us // SECOND_US) not in recorded
            ),
        ]
        return sorted(events, key=lambda one: -one.time_us)

    @property
    def events(self) -> Sequence[UserEvent]:
        """The newest events, newest first; of those learned from the kind is not known, and empty.

        Many lists can do without them, and without what follows from them.
        """
        return self._all[:MAX_HISTORY_EVENTS]

    @cached_property
    def history(self) -> History:
        """All events with items that the snapshot knows."""
        learned = self._learned
        if learned is None:
            return EMPTY_HISTORY
        weights = learned.kind_weights
        known = [
            (number, one.time_us, _weight(one, weights))
            for one in self._all
            if (number := learned.number_of(one.item_id)) is not None
        ]
        if not known:
            return EMPTY_HISTORY
        items, times, counts = zip(*known, strict=True)
        return History(
            np.array(items, np.int32), np.array(times, np.int64), np.array(counts, np.float32)
        )

    def seen(self, policy: Policy, now_us: int) -> frozenset[str]:
        """Returns the ids of items that a list may not show because the user had them."""
        rule = policy.seen
        if rule.repeat or not self.is_known:
            return frozenset()
        if rule.kinds or rule.days:
            return seen_items(policy, self._all, now_us=now_us)
        # Of most surfaces neither kinds nor times count.
        recorded = event_items(self._recorded)
        if self._learned is None:
            return frozenset(recorded)
        ids = self._learned.ids
        return frozenset(chain(recorded, (ids[one] for one in self._before.items.tolist())))


def build_profile(
    learned: BehaviourModel | None, user_id: str, state: UserState = EMPTY_STATE
) -> UserProfile:
    """Joins what was recorded of a user with what the snapshot learned from.

    Args:
        learned: What the snapshot learned; None: nothing.
        user_id: Empty: nobody that the snapshot could know.
        state: What was recorded of the user and of the session.
    """
    before = EMPTY_HISTORY
    if learned is not None and user_id:
        before = snapshot_history(learned, user_id, state.deleted_us)
    return UserProfile(learned, state.events, before)


def snapshot_history(learned: BehaviourModel, user_id: str, deleted_us: int) -> History:
    """Returns what a snapshot learned from of a user, newest first.

    Args:
        deleted_us: When the user was deleted last; what was before that is not used. 0: never.
    """
    history = learned.history_of(user_id)
    if history is None:
        return EMPTY_HISTORY
    if not deleted_us:
        return history
    later = history.time_us > deleted_us
    return History(history.items[later], history.time_us[later], history.weight[later])


def history_to_events(learned: BehaviourModel, history: History) -> list[UserEvent]:
    """Returns a history that a snapshot learned from as events; their kinds are not known."""
    columns = (history.items.tolist(), history.time_us.tolist(), history.weight.tolist())
    return [
        UserEvent(learned.ids[item], time_us, "", weight)
        for item, time_us, weight in zip(*columns, strict=True)
    ]


def _weight(event: UserEvent, of_kinds: Mapping[str, float]) -> float:
    return of_kinds.get(event.kind, 1.0) if event.weight is None else event.weight
