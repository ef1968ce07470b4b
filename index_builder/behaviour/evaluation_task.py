"""The task of an evaluation: recommend to users whose later interactions are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from retrieval.behaviour.blend import Generator, without_history
from retrieval.behaviour.history import History

_TIES = 1_000


class EvaluationTask(NamedTuple):
    """The u users of an evaluation, and the items they interacted with later.

    users: (u,) int32 user numbers.
    histories: The known history of each user.
    relevant: For each user, the distinct later items, at least one.
    candidates: (items,) bool, whether an item may be recommended.
    order: (items,) int64 item numbers in order of their ids as text, which breaks ties of scores.
    repeats: Whether items of the history may be recommended again.
    """

    users: NDArray[np.int32]
    histories: Sequence[History]
    relevant: Sequence[NDArray[np.int32]]
    candidates: NDArray[np.bool_]
    order: NDArray[np.int64]
    repeats: bool


def make_task(split: Split, *, repeats: bool = False, only_known: bool = False) -> EvaluationTask:
    """Returns the task of a split; users without relevant items are not tested.

    Candidates are the items of the training rows or, if the split holds out items, the held-out
    items.

    Args:
        repeats: Whether items of the history may be recommended again; if not, they are not
            relevant.
        only_known: Whether only candidates are relevant; if not, other items count as missed.
    """
    train = split.train
    candidates = np.zeros(len(train.items), np.bool_)
    cold = split.held_out_items
    candidates[train.item if cold is None else cold] = True
    known = _by_user(train if split.fold_in is None else split.fold_in)
    tested = _by_user(split.test)
    users: list[int] = []
    histories: list[History] = []
    relevant: list[NDArray[np.int32]] = []
    for user, rows in tested.items():
        if user not in known:
            continue
        items = np.unique(rows.item)
        if only_known:
            items = items[candidates[items]]
        if not repeats:
            items = np.setdiff1d(items, known[user].item)
        if len(items):
            users.append(user)
            histories.append(history_of(known[user]))
            relevant.append(items)
    order = np.argsort(np.array(train.items))
    return EvaluationTask(
        np.array(users, np.int32), histories, relevant, candidates, order, repeats
    )


def only_known_items(split_name: str) -> bool:
    """Returns whether only items of the training rows are relevant in a split.

    With a split by time, new items appear in the test part, which no behavioural model can know. In
    the other splits, unknown items count as missed.
    """
    return split_name.startswith("time:")


def history_of(rows: Interactions) -> History:
    """Returns the rows of one user, which are in order of time, as a history."""
    return History(rows.item[::-1], rows.time_us[::-1], rows.weight[::-1])


def top_lists(generator: Generator, task: EvaluationTask, k: int) -> NDArray[np.int32]:
    """Returns the k best items for each user: (u, k) int32, -1 where fewer are left.

    Candidates that the generator does not score are not listed. Ties are broken by item id.
    """
    lists = np.full((len(task.users), k), -1, np.int32)
    places = np.empty(len(task.order), np.int64)
    places[task.order] = np.arange(len(task.order))
    for number, history in enumerate(task.histories):
        allowed = task.candidates if task.repeats else without_history(task.candidates, history)
        # Generators break ties by number: with more items than needed, those by id are among them.
        rows, scores = generator.best(history, allowed, k + _TIES)
        best = rows[np.lexsort((places[rows], -scores))][:k]
        lists[number, : len(best)] = best
    return lists


def _by_user(rows: Interactions) -> dict[int, Interactions]:
    ordered = rows.by_time()
    starts = np.flatnonzero(np.diff(ordered.user, prepend=-1))
    stops = [*starts[1:].tolist(), len(ordered.user)]
    return {
        int(ordered.user[start]): ordered.some(np.arange(start, stop))
        for start, stop in zip(starts.tolist(), stops, strict=True)
    }
