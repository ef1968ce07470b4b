"""Tables under other item numbers: those of another snapshot, or of more items than were learned.

In all of this, numbers are (old items,) int64, the new number of each item, -1 where it is gone;
they ascend but for those, so that what was in order stays in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.tables import BehaviourTables
from retrieval.behaviour.user_histories import UserHistories

_Numbers = NDArray[np.int64]
_T = TypeVar("_T", bound=np.generic)


def map_ids(old: Sequence[str], new: Sequence[str]) -> _Numbers:
    """Returns the new number of each old id; both ascend."""
    places = {one: number for number, one in enumerate(new)}
    return np.fromiter((places.get(one, -1) for one in old), np.int64, len(old))


def remap_tables(tables: BehaviourTables, numbers: _Numbers, ids: Sequence[str]) -> BehaviourTables:
    """Returns tables of other items: those gone are in no list and no history any more.

    Of new items nothing is known: no interaction, popularity 0, no list, factors of 0. The gram
    matrix stays, since what users are folded in against is all that was learned. Rankers stay, too:
    they know items by features.
    """
    count = len(ids)
    factors = tables.factors
    return BehaviourTables(
        ids,
        _placed(tables.interactions, numbers, count),
        {name: _placed(one, numbers, count) for name, one in tables.popularity.items()},
        {name: _lists(one, numbers, count) for name, one in tables.lists.items()},
        factors._replace(vectors=_placed(factors.vectors, numbers, count)),
        _histories(tables.histories, numbers),
        tables.rankers,
    )


def _placed(rows: NDArray[_T], numbers: _Numbers, count: int) -> NDArray[_T]:
    placed = np.zeros((count, *rows.shape[1:]), rows.dtype)
    placed[numbers[numbers >= 0]] = rows[numbers >= 0]
    return placed


def _lists(lists: ItemLists, numbers: _Numbers, count: int) -> ItemLists:
    of = numbers[np.repeat(np.arange(lists.items), np.diff(lists.starts))]
    others = numbers[lists.others]
    kept = (of >= 0) & (others >= 0)
    counts = np.bincount(of[kept], minlength=count)
    return ItemLists(_starts(counts), others[kept].astype(np.int32), lists.scores[kept])


def _histories(histories: UserHistories, numbers: _Numbers) -> UserHistories:
    kept = histories.some(numbers[histories.items] >= 0)
    return kept._replace(items=numbers[kept.items].astype(np.int32))


def _starts(counts: _Numbers) -> _Numbers:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
