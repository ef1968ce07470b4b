"""The user of a list: interactions from Redis and from the snapshot as one history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cached_property
from itertools import chain
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.times import SECOND_US
from retrieval.behaviour.history import MAX_HISTORY_EVENTS
from retrieval.behaviour.item_keys import keys_of
from retrieval.protocols.candidates import NO_HISTORY, KeyedHistory, StoredHistory
from retrieval.recommend.policies import Policy, seen_items
from retrieval.users.records import (
    EMPTY_STATE,
    UserEvent,
    UserState,
    event_items,
    items_and_kinds,
)

_NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


class UserProfile:
    """What is known about the user of a list.

    A recorded event may also be in the training data of the snapshot, so two events with the same
    item in the same second count as one.

    Args:
        recorded: Recorded events, newest first, including items that the snapshot does not have.
        trained: Interactions of the user that the snapshot was trained on.
        kind_weights: Weights by kind of interaction; other kinds weigh 1.
        attributes: Of the user.
    """

    def __init__(
        self,
        recorded: Sequence[UserEvent] = (),
        trained: StoredHistory = NO_HISTORY,
        kind_weights: Mapping[str, float] = _NO_WEIGHTS,
        attributes: Attributes = EMPTY_STATE.attributes,
    ) -> None:
        self.attributes = attributes
        self._recorded = recorded
        self._trained = trained
        self._kind_weights = kind_weights

    @property
    def is_known(self) -> bool:
        """Whether the user has any interactions."""
        return bool(self._recorded) or len(self._trained.ids) > 0

    @cached_property
    def _all(self) -> Sequence[UserEvent]:
        """All events; computed on first use, since many lists need only their items."""
        recorded = self._recorded
        if not len(self._trained.ids):
            return recorded
        known = {(one.item_id, one.time_us // SECOND_US) for one in recorded}
        events = [
            *recorded,
            *(
                one
                for one in history_to_events(self._trained)
                if (one.item_id, one.time_us // SECOND_US) not in known
            ),
        ]
        return sorted(events, key=lambda one: -one.time_us)

    @property
    def events(self) -> Sequence[UserEvent]:
        """The newest events, newest first; the kind of trained ones is unknown and empty."""
        return self._all[:MAX_HISTORY_EVENTS]

    @cached_property
    def _weighted_events(self) -> Sequence[tuple[UserEvent, float]]:
        weighed = [(one, _weight(one, self._kind_weights)) for one in self._all]
        return [(one, weight) for one, weight in weighed if weight > 0]

    @cached_property
    def history(self) -> KeyedHistory:
        """The events as generators read them, without those that weigh nothing."""
        return KeyedHistory(
            keys_of(one.item_id for one, _ in self._weighted_events),
            np.array([one.time_us for one, _ in self._weighted_events], np.int64),
            np.array([weight for _, weight in self._weighted_events], np.float32),
        )

    @cached_property
    def history_ids(self) -> frozenset[str]:
        """The items of `history`."""
        return frozenset(one.item_id for one, _ in self._weighted_events)

    def seen(self, policy: Policy, now_us: int) -> frozenset[str]:
        """Returns the ids of items that a list hides because the user had them."""
        rule = policy.seen
        if rule.repeat or not self.is_known:
            return frozenset()
        if rule.kinds or rule.days:
            return seen_items(policy, self._all, now_us=now_us)
        # Most surfaces restrict neither kinds nor times.
        had = self._had if rule.by_item and self._kind_weights else self.item_ids
        return had - self.again if rule.by_item and self.again else had

    @cached_property
    def _had(self) -> frozenset[str]:
        """The items of interactions that weigh much: to view an item is not to have it."""
        weights, least = self._kind_weights, max(self._kind_weights.values(), default=0.0) / 2
        much = [
            item_id
            for item_id, kind in items_and_kinds(self._recorded)
            if not kind or weights.get(kind, 1.0) >= least
        ]
        # Trained interactions have no kind.
        return frozenset(chain(much, self._trained.ids))

    @cached_property
    def again(self) -> frozenset[str]:
        """The items of the user that may be listed again, as the snapshot knows that users do."""
        if not self._trained.again:
            return frozenset()
        again = self._trained.again & self.item_ids
        if not self._kind_weights:
            # Of different kinds that weigh the same, views may be all that users repeat.
            events = [one for one in items_and_kinds(self._recorded) if one[0] in again]
            kind_of = dict(events)
            again -= {item_id for item_id, kind in events if kind != kind_of[item_id]}
        return again

    @cached_property
    def item_ids(self) -> frozenset[str]:
        """The items of all interactions."""
        return frozenset(chain(event_items(self._recorded), self._trained.ids))

    def restricted_to(self, item_ids: Set[str]) -> UserProfile:
        """Returns the profile without interactions with other items."""
        recorded = [one for one in self._recorded if one.item_id in item_ids]
        kept = [at for at, item_id in enumerate(self._trained.ids) if item_id in item_ids]
        trained = self._trained.take(np.array(kept, np.int64))
        return UserProfile(recorded, trained, self._kind_weights, self.attributes)


def build_profile(
    state: UserState = EMPTY_STATE,
    trained: StoredHistory = NO_HISTORY,
    kind_weights: Mapping[str, float] = _NO_WEIGHTS,
) -> UserProfile:
    """Returns the profile of a user, without what was trained on before the user was deleted.

    Args:
        state: Recorded state of the user and the session.
        trained, kind_weights: See `UserProfile`.
    """
    known = since(trained, state.deleted_us)
    return UserProfile(state.events, known, kind_weights, state.attributes)


def since(trained: StoredHistory, deleted_us: int) -> StoredHistory:
    """Returns the interactions after a user was last deleted; all if deleted_us is 0."""
    if not deleted_us:
        return trained
    return trained.take(np.flatnonzero(trained.time_us > deleted_us))


def history_to_events(trained: StoredHistory) -> list[UserEvent]:
    """Returns a history that a snapshot was trained on as events; their kinds are unknown."""
    columns = (trained.ids, trained.time_us.tolist(), trained.weight.tolist())
    return [
        UserEvent(item_id, time_us, "", weight)
        for item_id, time_us, weight in zip(*columns, strict=True)
    ]


def history_of_items(item_ids: Iterable[str]) -> KeyedHistory:
    """Returns a history of some items, all at one time."""
    keys: NDArray[np.uint64] = keys_of(item_ids)
    return KeyedHistory(keys, np.zeros(len(keys), np.int64), np.ones(len(keys), np.float32))


def _weight(event: UserEvent, kind_weights: Mapping[str, float]) -> float:
    return kind_weights.get(event.kind, 1.0) if event.weight is None else event.weight
