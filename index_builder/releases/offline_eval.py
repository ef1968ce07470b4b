"""Evaluates the lists of a snapshot on interactions after its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_builder.evaluation.retrieval_metrics import ndcg
from index_builder.interactions.records import Interactions
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.history import EMPTY_HISTORY
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.ranking import rank_items

# Each list takes a few milliseconds.
_MAX_USERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureInteractions:
    """Later interactions of users. users: Ids. items: Distinct item ids of each user."""

    users: Sequence[str]
    items: Sequence[frozenset[str]]


def future_interactions(
    later: Interactions, after_us: int, models: Sequence[BehaviourModel], *, repeats: bool
) -> FutureInteractions:
    """Returns interactions after a moment whose user and item are known to all snapshots.

    Args:
        after_us: Microseconds since 1970.
        models: The models of the snapshots; unless lists may repeat items, those in a user's
            history in any of them are excluded.
        repeats: Whether lists may repeat items of the history.
    """
    rows = later.some(later.time_us > after_us)
    by_user: dict[str, set[str]] = {}
    for user, item in zip(rows.user.tolist(), rows.item.tolist(), strict=True):
        by_user.setdefault(later.users[user], set()).add(later.items[item])
    users, items = [], []
    for user in sorted(by_user):
        histories = [(one, one.history_of(user)) for one in models]
        if any(history is None for _, history in histories):
            continue
        wanted = {
            one
            for one in by_user[user]
            if all(
                (at := model.number_of(one)) is not None and model.trained[at] for model in models
            )
        }
        if not repeats:
            for model, history in histories:
                assert history is not None
                wanted -= {model.ids[one] for one in history.items.tolist()}
        if wanted:
            users.append(user)
            items.append(frozenset(wanted))
    if len(users) > _MAX_USERS:
        chosen = np.random.default_rng(0).choice(len(users), _MAX_USERS, replace=False)
        kept = np.sort(chosen).tolist()
        users, items = [users[at] for at in kept], [items[at] for at in kept]
    return FutureInteractions(users=users, items=items)


def ndcg_of_lists(
    models: BehaviourModel, wanted: FutureInteractions, k: int, *, repeats: bool
) -> NDArray[np.float64]:
    """Returns NDCG@k of the list that a snapshot recommends to each user, 0..1: (u,) float64.

    Lists use only the trained history of the user, before any rule of a surface.
    """
    values = np.zeros(len(wanted.users))
    for at, user in enumerate(wanted.users):
        history = models.history_of(user)
        assert history is not None, "all users are known"
        allowed = np.ones(len(models.ids), np.bool_)
        if not repeats:
            allowed[history.items] = False
        ranking = rank_items(
            models, EMPTY_HISTORY, history, repeats=repeats, allowed=allowed, first=k
        )
        listed: list[str] = []
        for numbers, _ in ranking.blocks:
            listed += [models.ids[one] for one in numbers[: k - len(listed)].tolist()]
            if len(listed) >= k:
                break
        grades: Mapping[str, int] = dict.fromkeys(wanted.items[at], 1)
        values[at] = ndcg(listed, grades, k)
    return values


def promised_ndcg(blend: snapshot_pb2.BlendCard) -> float:
    """Returns the NDCG that a card promises; 0 if nothing was chosen on validation."""
    if not blend.split:
        return 0.0
    ranker, debias = blend.ranker, blend.debias
    promise = ranker.validation_ndcg if ranker.kept else blend.validation_ndcg
    if debias.undiscounted_ndcg:
        promise *= debias.ndcg / debias.undiscounted_ndcg
    return promise
