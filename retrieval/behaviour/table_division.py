"""Divides lists and histories among shards, and joins them again.

A shard has the entries of all lists that name its items, so that it computes whole scores of these
items, and the histories of the users whose ids belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.store.snapshot import shard_of
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_lists import ItemLists
from retrieval.index.sorted_ids import SortedIds


def owners_of(ids: Iterable[str], shards: int) -> NDArray[np.uint8]:
    """Returns the shard of each item or user: (n,) uint8."""
    return np.fromiter((shard_of(one, shards) for one in ids), np.uint8)


def divide_lists(lists: ItemLists, numbers: NDArray[np.int32]) -> ItemLists:
    """Returns the entries that are items of a shard, as positions in its item numbers.

    Args:
        numbers: (r,) item numbers of the shard, ascending.
    """
    rows = np.full(lists.items, -1, np.int32)
    rows[numbers] = np.arange(len(numbers))
    return lists.renumbered(rows)


def join_lists(parts: Sequence[tuple[NDArray[np.int32], ItemLists]]) -> ItemLists:
    """Returns the lists that were divided; each part comes with the item numbers of its shard."""
    if len(parts) == 1:
        ((numbers, lists),) = parts
        return lists._replace(others=numbers[lists.others])
    counts = [np.diff(lists.starts) for _, lists in parts]
    items = np.concatenate([np.repeat(np.arange(len(one), dtype=np.int32), one) for one in counts])
    others = np.concatenate([numbers[lists.others] for numbers, lists in parts])
    scores = np.concatenate([lists.scores for _, lists in parts])
    order = np.lexsort((others, -scores, items))
    starts = np.concatenate(([0], np.cumsum(np.sum(counts, axis=0))))
    return ItemLists(starts.astype(np.int64), others[order], scores[order])


def divide_histories(histories: UserHistories, own: NDArray[np.bool_]) -> UserHistories:
    """Returns the histories of some users. own: (u,) bool."""
    return histories.filtered(np.repeat(own, np.diff(histories.starts)))


def join_histories(parts: Sequence[UserHistories]) -> UserHistories:
    """Returns the histories that were divided, in order of user."""
    if len(parts) == 1:
        return parts[0]
    users = [user for part in parts for user in part.users]
    order = np.array(sorted(range(len(users)), key=users.__getitem__), np.int64)
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    starts = np.concatenate(([0], np.cumsum(counts)))
    # The events of the users in their new order.
    moved = counts[order]
    ends = np.cumsum(moved)
    places = np.arange(int(starts[-1]))
    places += np.repeat(starts[:-1][order] - (ends - moved), moved)
    return UserHistories(
        SortedIds.of([users[at] for at in order.tolist()]),
        np.concatenate(([0], ends)).astype(np.int64),
        np.concatenate([part.items for part in parts])[places],
        np.concatenate([part.time_us for part in parts])[places],
        np.concatenate([part.weight for part in parts])[places],
    )
