"""What an evaluation asks: lists for users whose later interactions are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.history import History
from retrieval.index.best_rows import top_k_with_ties


class EvaluationTask(NamedTuple):
    """Users to be given lists, and what they had afterwards; u users.

    users: (u,) int32 numbers. histories, relevant: Of each; relevant: distinct items, at least one.
    candidates: (items,) bool, what may be recommended.
    order: (items,) int64, item numbers by id as text: the order of equal scores.
    repeats: Whether what a user had may be recommended again.
    """

    users: NDArray[np.int32]
    histories: Sequence[History]
    relevant: Sequence[NDArray[np.int32]]
    candidates: NDArray[np.bool_]
    order: NDArray[np.int64]
    repeats: bool


def make_task(split: Split, *, repeats: bool = False, only_known: bool = False) -> EvaluationTask:
    """Makes the task of a split; a user of whom nothing is asked for is not tested.

    Candidates are the items of the training rows, or those held out where the split is about them.

    Args:
        repeats: What a user had may be recommended again; else it is not asked for.
        only_known: What is no candidate is not asked for either; else it counts as missed.
    """
    train = split.train
    candidates = np.zeros(len(train.items), np.bool_)
    cold = split.held_out_items
    candidates[train.item if cold is None else cold] = True
    known = _by_user(train if split.fold_in is None else split.fold_in)
    asked = _by_user(split.test)
    users: list[int] = []
    histories: list[History] = []
    relevant: list[NDArray[np.int32]] = []
    for user, rows in asked.items():
        if user not in known:
            continue
        wanted = np.unique(rows.item)
        if only_known:
            wanted = wanted[candidates[wanted]]
        if not repeats:
            wanted = np.setdiff1d(wanted, known[user].item)
        if len(wanted):
            users.append(user)
            histories.append(history_of(known[user]))
            relevant.append(wanted)
    order = np.argsort(np.array(train.items))
    return EvaluationTask(
        np.array(users, np.int32), histories, relevant, candidates, order, repeats
    )


def only_known_items(how: str) -> bool:
    """Returns whether a split asks only for items of its training rows.

    After a moment in time new items come, which no model of behaviour can know; in the other splits
    what is not known counts as missed.
    """
    return how.startswith("time:")


def history_of(rows: Interactions) -> History:
    """Returns the rows of one user, in order of time, as a history."""
    return History(rows.item[::-1], rows.time_us[::-1], rows.weight[::-1])


def top_lists(generator: Generator, task: EvaluationTask, k: int) -> NDArray[np.int32]:
    """Returns the k best items of each user: (u, k) int32, -1 where nothing is left.

    Every candidate is ranked. Equal scores stand in the order of ids.
    """
    lists = np.full((len(task.users), k), -1, np.int32)
    in_order = task.candidates[task.order]
    for number, history in enumerate(task.histories):
        scores = generator.scores(history)[task.order]
        scores = np.where(in_order, scores, -np.inf)
        if not task.repeats:
            seen = np.zeros(len(scores), np.bool_)
            seen[history.items] = True
            scores[seen[task.order]] = -np.inf
        left = np.flatnonzero(scores > -np.inf)
        left, rest = top_k_with_ties(left, scores[left], k)
        best = left[np.argsort(-rest, kind="stable")[:k]]
        lists[number, : len(best)] = task.order[best]
    return lists


def _by_user(rows: Interactions) -> dict[int, Interactions]:
    ordered = rows.by_time()
    starts = np.flatnonzero(np.diff(ordered.user, prepend=-1))
    stops = [*starts[1:].tolist(), len(ordered.user)]
    return {
        int(ordered.user[start]): ordered.some(np.arange(start, stop))
        for start, stop in zip(starts.tolist(), stops, strict=True)
    }
