"""Evaluates the lists of a snapshot on interactions after its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_builder.evaluation.retrieval_metrics import ndcg
from index_builder.evaluation.served_lists import served_list
from index_builder.interactions.records import Interactions
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.model import BehaviourModel, build_behaviour_model
from retrieval.behaviour.tables import BehaviourTables
from retrieval.index.sorted_ids import index_of
from retrieval.protocols.candidates import HistoryRequest, KeyedHistory

# Each list takes a few milliseconds.
_MAX_USERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureInteractions:
    """Later interactions of users. users: Ids. items: Distinct item ids of each user."""

    users: Sequence[str]
    items: Sequence[frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSnapshot:
    """What a snapshot learned: its tables, and the model that ranks by them."""

    tables: BehaviourTables
    model: BehaviourModel

    @classmethod
    def of(cls, card: snapshot_pb2.BehaviourCard, tables: BehaviourTables) -> TrainedSnapshot:
        """Builds the model of the tables of a snapshot."""
        return cls(tables=tables, model=build_behaviour_model(card, tables))

    def had_by(self, user_id: str) -> frozenset[str] | None:
        """Returns the ids of the items that a user had; None for unknown users."""
        history = self.tables.histories.of(user_id)
        if history is None:
            return None
        return frozenset(self.tables.ids[one] for one in history.items.tolist())

    def is_trained(self, item_id: str) -> bool:
        """Returns whether there are interactions with an item."""
        number = index_of(self.tables.ids, item_id)
        return number is not None and bool(self.tables.interactions[number])


def future_interactions(
    later: Interactions, after_us: int, snapshots: Sequence[TrainedSnapshot], *, repeats: bool
) -> FutureInteractions:
    """Returns interactions after a moment whose user and item are known to all snapshots.

    Args:
        after_us: Microseconds since 1970.
        snapshots: Unless lists may repeat items, those in a user's history in any of them are
            excluded.
        repeats: Whether lists may repeat items of the history.
    """
    rows = later.some(later.time_us > after_us)
    by_user: dict[str, set[str]] = {}
    for user, item in zip(rows.user.tolist(), rows.item.tolist(), strict=True):
        by_user.setdefault(later.users[user], set()).add(later.items[item])
    users: list[str] = []
    items: list[frozenset[str]] = []
    for user in sorted(by_user):
        had = [one.had_by(user) for one in snapshots]
        if any(items is None for items in had):
            continue
        wanted = {item for item in by_user[user] if all(s.is_trained(item) for s in snapshots)}
        if not repeats:
            wanted = wanted.difference(*(items or () for items in had))
        if wanted:
            users.append(user)
            items.append(frozenset(wanted))
    if len(users) > _MAX_USERS:
        chosen = np.random.default_rng(0).choice(len(users), _MAX_USERS, replace=False)
        kept = np.sort(chosen).tolist()
        users, items = [users[at] for at in kept], [items[at] for at in kept]
    return FutureInteractions(users=users, items=items)


def ndcg_of_lists(
    snapshot: TrainedSnapshot, wanted: FutureInteractions, k: int, *, repeats: bool
) -> NDArray[np.float64]:
    """Returns NDCG@k of the list that a snapshot recommends to each user, 0..1: (u,) float64.

    Lists use only the trained history of the user, before any rule of a surface.
    """
    shard = snapshot.model.local
    assert shard is not None, "the tables of the snapshot are in this process"
    values = np.zeros(len(wanted.users))
    for at, user in enumerate(wanted.users):
        trained = shard.history(HistoryRequest(user))
        history = KeyedHistory(keys_of(trained.ids), trained.time_us, trained.weight)
        listed = served_list(snapshot.model, history, k, repeats=repeats)
        grades: Mapping[str, int] = dict.fromkeys(wanted.items[at], 1)
        values[at] = ndcg(listed, grades, k)
    return values
