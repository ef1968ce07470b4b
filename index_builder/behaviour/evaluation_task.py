"""The task of an evaluation: recommend to users whose later interactions are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from retrieval.behaviour.blend import Generator, without_history
from retrieval.behaviour.history import History

_TIES = 1_000
_T = TypeVar("_T")


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
    known = train if split.fold_in is None else split.fold_in
    events = np.bincount(known.user, minlength=len(train.users))
    pairs = split.test.pairs()
    user, item = np.divmod(pairs, len(train.items))
    kept = events[user] > 0
    if only_known:
        kept &= candidates[item]
    if not repeats:
        had = known.pairs()
        kept &= had[np.minimum(np.searchsorted(had, pairs), len(had) - 1)] != pairs
    user, item = user[kept], item[kept].astype(np.int32)
    users, firsts = np.unique(user, return_index=True)
    stops = [*firsts[1:].tolist(), len(user)]
    starts = np.cumsum(events) - events
    # Of all users, histories are read when they are needed: there may be millions.
    ordered = np.lexsort((known.time_us, known.user)).astype(np.int32)

    def history(at: int) -> History:
        start = starts[users[at]]
        rows = known.some(ordered[start : start + events[users[at]]].astype(np.int64))
        segments = np.flatnonzero(train.belongs[users[at] : users[at] + 1])
        return history_of(rows)._replace(segments=tuple(segments.tolist()))

    def relevant(at: int) -> NDArray[np.int32]:
        return item[firsts[at] : stops[at]]

    order = np.array(sorted(range(len(train.items)), key=train.items.__getitem__), np.int64)
    return EvaluationTask(
        users.astype(np.int32),
        LazySequence(len(users), history),
        LazySequence(len(users), relevant),
        candidates,
        order,
        repeats,
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


class LazySequence(Sequence[_T]):
    """A sequence of fixed length whose elements are computed when they are read.

    Args:
        count: Number of elements.
        compute: Returns the element at a position, 0..count - 1.
    """

    def __init__(self, count: int, compute: Callable[[int], _T]) -> None:
        self._count = count
        self._compute = compute

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> _T: ...
    @overload
    def __getitem__(self, at: slice) -> list[_T]: ...
    def __getitem__(self, at: int | slice) -> _T | list[_T]:
        places = range(self._count)[at]
        if isinstance(places, int):
            return self._compute(places)
        return [self._compute(one) for one in places]
