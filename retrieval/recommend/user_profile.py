"""The user of a list: interactions from Redis and from the snapshot as one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from itertools import chain

import numpy as np

from nearline.times import SECOND_US
from retrieval.behaviour.history import EMPTY_HISTORY, MAX_HISTORY_EVENTS, History
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.policies import Policy, seen_items
from retrieval.users.records import EMPTY_STATE, UserEvent, UserState, event_items


class UserProfile:
    """What is known about the user of a list.

    A recorded event may also be in the training data of the snapshot, so two events with the same
    item in the same second count as one.

    Args:
        model: The behaviour model of the snapshot; None if it has none.
        recorded: Recorded events, newest first, including items that the snapshot does not have.
        trained: Interactions of the user that the snapshot was trained on.
    """

    def __init__(
        self,
        model: BehaviourModel | None = None,
        recorded: Sequence[UserEvent] = (),
        trained: History = EMPTY_HISTORY,
    ) -> None:
        self._model = model
        self._recorded = recorded
        self._trained = trained

    @property
    def is_known(self) -> bool:
        """Whether the user has any interactions."""
        return bool(self._recorded) or len(self._trained.items) > 0

    @cached_property
    def _all(self) -> Sequence[UserEvent]:
        if self._model is None:
            return self._recorded
        recorded = {(one.item_id, one.time_us // SECOND_US) for one in self._recorded}
        events = [
            *self._recorded,
            *(
                one
                for one in history_to_events(self._model, self._trained)
                if (one.item_id, one.time_us // SECOND_US) not in recorded
            ),
        ]
        return sorted(events, key=lambda one: -one.time_us)

    @property
    def events(self) -> Sequence[UserEvent]:
        """The newest events, newest first; the kind of trained ones is unknown and empty.

        Computed on first use, since many lists do not need it.
        """
        return self._all[:MAX_HISTORY_EVENTS]

    @cached_property
    def history(self) -> History:
        """All events with items of the snapshot."""
        model = self._model
        if model is None:
            return EMPTY_HISTORY
        weights = model.kind_weights
        known = [
            (number, one.time_us, _weight(one, weights))
            for one in self._all
            if (number := model.number_of(one.item_id)) is not None
        ]
        if not known:
            return EMPTY_HISTORY
        items, times, counts = zip(*known, strict=True)
        return History(
            np.array(items, np.int32), np.array(times, np.int64), np.array(counts, np.float32)
        )

    def seen(self, policy: Policy, now_us: int) -> frozenset[str]:
        """Returns the ids of items that a list hides because the user had them."""
        rule = policy.seen
        if rule.repeat or not self.is_known:
            return frozenset()
        if rule.kinds or rule.days:
            return seen_items(policy, self._all, now_us=now_us)
        # Most surfaces restrict neither kinds nor times.
        return self.item_ids

    @property
    def item_ids(self) -> frozenset[str]:
        """The items of all interactions."""
        recorded = event_items(self._recorded)
        if self._model is None:
            return frozenset(recorded)
        ids = self._model.ids
        return frozenset(chain(recorded, (ids[one] for one in self._trained.items.tolist())))

    def restricted_to(self, item_ids: Set[str]) -> UserProfile:
        """Returns the profile without interactions with other items."""
        model, trained = self._model, self._trained
        if model is not None:
            kept = np.isin(trained.items, model.numbers_of(item_ids))
            trained = History(trained.items[kept], trained.time_us[kept], trained.weight[kept])
        recorded = [one for one in self._recorded if one.item_id in item_ids]
        return UserProfile(model, recorded, trained)


def build_profile(
    model: BehaviourModel | None, user_id: str, state: UserState = EMPTY_STATE
) -> UserProfile:
    """Returns the profile of a user from recorded state and the snapshot.

    Args:
        model: The behaviour model of the snapshot; None if it has none.
        user_id: Empty for a session without a user.
        state: Recorded state of the user and the session.
    """
    trained = EMPTY_HISTORY
    if model is not None and user_id:
        trained = snapshot_history(model, user_id, state.deleted_us)
    return UserProfile(model, state.events, trained)


def snapshot_history(model: BehaviourModel, user_id: str, deleted_us: int) -> History:
    """Returns the interactions of a user that a snapshot was trained on, newest first.

    Args:
        deleted_us: When the user was last deleted; earlier interactions are left out. 0: never.
    """
    history = model.history_of(user_id)
    if history is None:
        return EMPTY_HISTORY
    if not deleted_us:
        return history
    later = history.time_us > deleted_us
    return History(history.items[later], history.time_us[later], history.weight[later])


def history_to_events(model: BehaviourModel, history: History) -> list[UserEvent]:
    """Returns a history that a snapshot was trained on as events; their kinds are unknown."""
    columns = (history.items.tolist(), history.time_us.tolist(), history.weight.tolist())
    return [
        UserEvent(model.ids[item], time_us, "", weight)
        for item, time_us, weight in zip(*columns, strict=True)
    ]


def _weight(event: UserEvent, kind_weights: Mapping[str, float]) -> float:
    return kind_weights.get(event.kind, 1.0) if event.weight is None else event.weight
