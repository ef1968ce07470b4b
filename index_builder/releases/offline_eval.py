"""How good the lists of a snapshot are on interactions that came after it learned."""

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

# A list takes a few milliseconds.
_MOST_USERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureInteractions:
    """What users had later. users: Ids. items: Of each, ids of what they had, each once."""

    users: Sequence[str]
    items: Sequence[frozenset[str]]


def future_interactions(
    later: Interactions, after_us: int, learned: Sequence[BehaviourModel], *, repeats: bool
) -> FutureInteractions:
    """Returns what users had after a moment, as far as all of some snapshots know user and item.

    Args:
        after_us: Microseconds since 1970.
        learned: The snapshots; what any of them knows that a user had before is not asked for,
            unless it may come again.
        repeats: It may.
    """
    rows = later.some(later.time_us > after_us)
    by_user: dict[str, set[str]] = {}
    for user, item in zip(rows.user.tolist(), rows.item.tolist(), strict=True):
        by_user.setdefault(later.users[user], set()).add(later.items[item])
    users, items = [], []
    for user in sorted(by_user):
        histories = [(one, one.history_of(user)) for one in learned]
        if any(history is None for _, history in histories):
            continue
        asked = {
            one
            for one in by_user[user]
            if all((at := each.number_of(one)) is not None and each.trained[at] for each in learned)
        }
        if not repeats:
            for each, history in histories:
                assert history is not None
                asked -= {each.ids[one] for one in history.items.tolist()}
        if asked:
            users.append(user)
            items.append(frozenset(asked))
    if len(users) > _MOST_USERS:
        chosen = np.random.default_rng(0).choice(len(users), _MOST_USERS, replace=False)
        kept = np.sort(chosen).tolist()
        users, items = [users[at] for at in kept], [items[at] for at in kept]
    return FutureInteractions(users=users, items=items)


def ndcg_of_lists(
    learned: BehaviourModel, wanted: FutureInteractions, k: int, *, repeats: bool
) -> NDArray[np.float64]:
    """Returns NDCG@k of the list that a snapshot would make of each user, 0..1: (u,) float64.

    Lists are those before any rule of a surface, from what the snapshot learned of the user alone.
    """
    values = np.zeros(len(wanted.users))
    for at, user in enumerate(wanted.users):
        history = learned.history_of(user)
        assert history is not None, "only users that it knows are asked for"
        allowed = np.ones(len(learned.ids), np.bool_)
        if not repeats:
            allowed[history.items] = False
        ranking = rank_items(
            learned, EMPTY_HISTORY, history, repeats=repeats, allowed=allowed, first=k
        )
        listed: list[str] = []
        for numbers, _ in ranking.blocks:
            listed += [learned.ids[one] for one in numbers[: k - len(listed)].tolist()]
            if len(listed) >= k:
                break
        grades: Mapping[str, int] = dict.fromkeys(wanted.items[at], 1)
        values[at] = ndcg(listed, grades, k)
    return values


def promised_ndcg(blend: snapshot_pb2.BlendCard) -> float:
    """Returns the NDCG that a card says its lists have; 0: it was not chosen on anything."""
    if not blend.split:
        return 0.0
    ranker = blend.ranker
    return ranker.validation_ndcg if ranker.kept else blend.validation_ndcg
