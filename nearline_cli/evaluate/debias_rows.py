"""Accuracy, novelty and coverage of served lists by how much popularity is discounted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from index_builder.behaviour.evaluation_task import EvaluationTask
    from index_builder.interactions.records import Interactions

USER, SIMILAR = "user", "similar"
# The most popular items, whose share of all listed items is measured.
_POPULAR: Final = 100
# Items whose lists are requested; more change the figures little.
MAX_ITEMS: Final = 1_000


class DebiasedLists(NamedTuple):
    """Lists of the router with one discount for popularity.

    kind: USER, or SIMILAR for items that go with an item. debias: 0..1. is_default: Whether it is
    the value of the snapshot. lists: (u, k) item numbers for the users of the task; for SIMILAR,
    those that go with the user's newest item. spread: (n, k) lists whose novelty and coverage
    count: the same, or for SIMILAR the lists of items of the catalogue.
    """

    kind: str
    debias: float
    is_default: bool
    lists: NDArray[np.int32]
    spread: NDArray[np.int32]


def sample_items(task: EvaluationTask, seed: int) -> NDArray[np.int64]:
    """Returns the items whose lists are requested, ascending."""
    items = np.flatnonzero(task.candidates)
    if len(items) > MAX_ITEMS:
        items = np.sort(np.random.default_rng(seed).choice(items, MAX_ITEMS, replace=False))
    return items


def debias_rows(
    measured: Sequence[DebiasedLists], train: Interactions, task: EvaluationTask, k: int
) -> list[Mapping[str, object]]:
    """Returns a row to print for each discount; none for lists in which nothing can be found.

    Lists of similar items never repeat items that the user had, so those are not relevant.
    top100_share: Share of the 100 most popular items among all that are listed.
    """
    from index_builder.behaviour.user_item_matrix import item_counts, users_by_items
    from index_builder.evaluation.recommendation_metrics import coverage, measure, novelty

    matrix = users_by_items(train)
    counts, users = matrix.getnnz(axis=0), int(np.count_nonzero(matrix.getnnz(axis=1)))
    top = np.argsort(-item_counts(train), kind="stable")[:_POPULAR]
    rows: list[Mapping[str, object]] = []
    for one in measured:
        relevant = list(task.relevant)
        if one.kind == SIMILAR:
            pairs = zip(relevant, task.histories, strict=True)
            relevant = [np.setdiff1d(items, history.items) for items, history in pairs]
        tested = [at for at, items in enumerate(relevant) if len(items)]
        if not tested:
            # Where people come back to what they had, there may be nothing else to find.
            continue
        found = measure(one.lists[tested], [relevant[at] for at in tested], k)
        listed = one.spread[one.spread >= 0]
        rows.append(
            {
                "lists": one.kind,
                "popularity_debias": one.debias,
                "default": one.is_default,
                f"ndcg@{k}": round(float(found.ndcg.mean()), 4),
                f"recall@{k}": round(float(found.recall.mean()), 4),
                f"novelty@{k}": round(novelty(one.spread, counts, users, k), 3),
                f"coverage@{k}": round(coverage(one.spread, int(task.candidates.sum()), k), 4),
                "top100_share": round(float(np.isin(listed, top).sum()) / max(len(listed), 1), 4),
                "users": len(tested),
            }
        )
    return rows
