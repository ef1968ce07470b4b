"""The part of the behaviour tables that one shard serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.factors import ItemFactors, OrderedFactors
from retrieval.behaviour.features import ItemStatistics
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_keys import ItemKeys
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.popularity import ItemScores
from retrieval.behaviour.popularity_discount import popularity_levels
from retrieval.behaviour.segments import SEGMENT_LIFTS
from retrieval.behaviour.sequences import SequenceModel
from retrieval.behaviour.table_division import divide_histories, divide_lists, owners_of
from retrieval.behaviour.table_files import (
    REMEDY,
    read_factors,
    read_histories,
    read_keys,
    read_lists,
    read_numbers,
)
from retrieval.behaviour.tables import (
    FOLDER,
    POPULARITY,
    REPEAT_RATE,
    BehaviourTables,
    divided_shards,
    read_item_columns,
    read_tables,
    tables_folder,
)
from retrieval.index.sorted_ids import SortedIds

_FOLDER = PurePosixPath(FOLDER)
# Share of its users who had an item again that makes it one to list again: socks, but no fridge.
_AGAIN = 0.2


class ShardTables(NamedTuple):
    """The tables of the r items of one shard, of the n items of a snapshot.

    An item of the snapshot has a number, one of the shard a row; both are in order of the ids.

    numbers: (r,) int32, the number of each row, ascending. keys, ids: Of all items, by number.
    trained: (n,) bool, whether an item has interactions. again: (n,) bool, whether users have it
    again. scores: By name of a table, of the rows.
    levels: (r,) float32, see `popularity_levels`. statistics: Of the rows. lists: By name; for each
    number, the rows that go with it. factors: Of all items, for user vectors; of the rows, to find
    the nearest. sequences: Likewise; None without. histories: Of the users of the shard, with
    numbers of items.
    """

    numbers: NDArray[np.int32]
    keys: ItemKeys
    ids: SortedIds
    trained: NDArray[np.bool_]
    again: NDArray[np.bool_]
    scores: Mapping[str, ItemScores]
    levels: NDArray[np.float32]
    statistics: ItemStatistics
    lists: Mapping[str, ItemLists]
    factors: ItemFactors
    sequences: SequenceModel | None
    histories: UserHistories

    def rows_of(self, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the rows of items: (n,) int64, -1 for items of other shards."""
        if len(self.numbers) == len(self.keys.numbers):
            return numbers.astype(np.int64)
        if not len(self.numbers):
            return np.full(len(numbers), -1, np.int64)
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[places] == numbers, places, -1)


def divide_tables(tables: BehaviourTables, shard: int, shards: int) -> ShardTables:
    """Returns the part of one shard of the tables of a snapshot; see `table_division`."""
    numbers = np.flatnonzero(owners_of(tables.ids, shards) == shard).astype(np.int32)
    lists = {
        name: one if shards == 1 else divide_lists(one, numbers)
        for name, one in tables.lists.items()
    }
    own = owners_of(tables.histories.users, shards) == shard
    return _shard_tables(
        numbers,
        ItemKeys.of(tables.ids),
        SortedIds.of(tables.ids),
        tables.interactions,
        tables.popularity,
        lists,
        tables.factors,
        tables.sequences,
        divide_histories(tables.histories, own),
    )


def read_shard_tables(
    store: Store, manifest: snapshot_pb2.Manifest, shard: int, shards: int
) -> ShardTables:
    """Reads the tables of one shard; what is large is mapped.

    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    divided = divided_shards(manifest)
    if divided != shards:
        if divided:
            raise SnapshotCorrupt(
                f"the behaviour tables of {manifest.snapshot_id} have {divided} shards, its items "
                f"{shards}; {REMEDY}"
            )
        return divide_tables(read_tables(store, manifest), shard, shards)
    own = tables_folder(shard)
    whole = [one.path for one in manifest.files if PurePosixPath(one.path).parent == _FOLDER]
    store.fetch(manifest.collection, manifest.snapshot_id, [*whole, f"{own}/"])
    root = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
    folder, part = root / FOLDER, root / own
    columns = read_item_columns(folder, manifest, mapped=True)
    count = len(columns.ids)
    numbers = read_numbers(part, count)
    return _shard_tables(
        numbers,
        read_keys(folder, count),
        SortedIds(columns.ids),
        columns.interactions,
        columns.popularity,
        {name: read_lists(part, name, count, len(numbers)) for name in columns.lists},
        read_factors(folder, count),
        columns.sequences,
        read_histories(part, count),
    )


def _shard_tables(
    numbers: NDArray[np.int32],
    keys: ItemKeys,
    ids: SortedIds,
    interactions: NDArray[np.int64],
    popularity: Mapping[str, NDArray[np.float32]],
    lists: Mapping[str, ItemLists],
    factors: ItemFactors,
    sequences: SequenceModel | None,
    histories: UserHistories,
) -> ShardTables:
    """Returns the tables of a shard, with the statistics of its items."""
    whole = len(numbers) == len(ids)
    statistics = ItemStatistics.of_tables(popularity)
    return ShardTables(
        numbers,
        keys,
        ids,
        interactions > 0,
        # Older builds have no repeat statistics.
        popularity.get(REPEAT_RATE, np.zeros(len(ids), np.float32)) >= _AGAIN,
        {
            name: ItemScores(one[numbers], float(one.max(initial=0)))
            for name, one in popularity.items()
            if name != SEGMENT_LIFTS  # They are in the statistics.
        },
        popularity_levels(popularity[POPULARITY])[numbers],
        statistics if whole else statistics.at(numbers),
        lists,
        factors._replace(own=OrderedFactors.of(factors.vectors[numbers])),
        sequences and sequences._replace(own=OrderedFactors.of(sequences.vectors[numbers])),
        histories,
    )
