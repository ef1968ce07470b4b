"""Converts tables to other item numbers: those of another snapshot, or of a larger set of items.

Throughout, `numbers` is (old items,) int64: the new number of each item, -1 if the item is gone.
The other numbers ascend, so sorted sequences stay sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.tables import BehaviourTables

_Numbers = NDArray[np.int64]
_T = TypeVar("_T", bound=np.generic)


def map_ids(old: Sequence[str], new: Sequence[str]) -> _Numbers:
    """Returns the new number of each old id; both sequences ascend."""
    # As Python strings in a dictionary, ten million ids take a gigabyte.
    places = pc.index_in(pa.array(old, pa.large_string()), pa.array(new, pa.large_string()))
    return np.asarray(places.fill_null(-1), np.int64)


def remap_tables(tables: BehaviourTables, numbers: _Numbers, ids: Sequence[str]) -> BehaviourTables:
    """Returns the tables for other items; items that are gone are removed from lists and histories.

    New items have no interactions, popularity 0, no list, and factors and vectors of 0. The gram
    matrix does not change, since users are folded in against everything that was learned. Neither
    do the rankers, which see items only through features.
    """
    count = len(ids)
    factors, sequences = tables.factors, tables.sequences
    return BehaviourTables(
        ids,
        _placed(tables.interactions, numbers, count),
        {name: _placed(one, numbers, count) for name, one in tables.popularity.items()},
        {name: _lists(one, numbers, count) for name, one in tables.lists.items()},
        factors._replace(vectors=_placed(factors.vectors, numbers, count)),
        _histories(tables.histories, numbers),
        tables.rankers,
        sequences and sequences._replace(vectors=_placed(sequences.vectors, numbers, count)),
    )


def _placed(rows: NDArray[_T], numbers: _Numbers, count: int) -> NDArray[_T]:
    placed = np.zeros((count, *rows.shape[1:]), rows.dtype)
    placed[numbers[numbers >= 0]] = rows[numbers >= 0]
    return placed


def _lists(lists: ItemLists, numbers: _Numbers, count: int) -> ItemLists:
    left = lists.renumbered(numbers, numbers >= 0)
    counts = _placed(np.diff(left.starts), numbers, count)
    return ItemLists(_starts(counts), left.others, left.scores)


def _histories(histories: UserHistories, numbers: _Numbers) -> UserHistories:
    kept = histories.filtered(numbers[histories.items] >= 0)
    return kept._replace(items=numbers[kept.items].astype(np.int32))


def _starts(counts: _Numbers) -> _Numbers:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
