"""Adds recorded and imported interactions of a collection to those of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_builder.interactions.merge import (
    NO_INTERACTIONS,
    MergedInteractions,
    first_source_rows,
    merge_interactions,
)
from index_builder.interactions.reader import numbered
from index_builder.interactions.recorded_interactions import add_recorded, deletion_limits
from index_builder.interactions.records import Interactions
from nearline.store.snapshot import Store
from retrieval.users.imports import ImportedInteractions
from retrieval.users.states import UserStates


async def add_recorded_and_imported(
    rows: Interactions,
    states: UserStates | None,
    store: Store,
    collection: str,
    weights: Mapping[str, float],
) -> MergedInteractions:
    """Adds interactions that are recorded or imported; each counts once, see `merge_interactions`.

    Args:
        rows: Rows of a file, cleaned.
        states: Recorded interactions. Optional.
        store, collection: Where imported ones are.
        weights: By kind. If empty, every kind weighs 1; if not, other kinds and kinds of weight 0
            are skipped.
    Raises: NotReady: the recorded ones cannot be read. SnapshotCorrupt, StoreError: the imported
        ones cannot.
    """
    added = 0
    if states is not None:
        rows, added = await add_recorded(rows, states.logged(collection), weights)

    def add() -> MergedInteractions:
        return merge_interactions(rows, read_imported(store, collection, weights))

    merged = await asyncio.to_thread(add)
    return merged._replace(added=added + merged.added)


def read_imported(store: Store, collection: str, weights: Mapping[str, float]) -> Interactions:
    """Returns the imported interactions, without those of users from before their deletion; blocks.

    Of interactions with the same user, item and second, only those of the first import count.

    Args:
        weights: See `add_recorded_and_imported`.
    Raises: SnapshotCorrupt. StoreError.
    """
    imported = ImportedInteractions(store, collection)
    users: list[Any] = []
    items: list[Any] = []
    times: list[NDArray[np.int64]] = []
    weighed: list[NDArray[np.float32]] = []
    sources: list[NDArray[np.int32]] = []
    names = imported.names()
    for source, name in enumerate(names):
        for part in imported.parts(name).values():
            table = imported.read(part, dictionaries=("user", "item", "kind"))
            weight = _weights(table, weights)
            table = table.append_column("weighed", pa.array(weight)).filter(pa.array(weight > 0))
            table = table.combine_chunks()
            if not table.num_rows:
                continue
            users += table["user"].chunks
            items += table["item"].chunks
            times.append(table["time_us"].to_numpy())
            weighed.append(table["weighed"].to_numpy())
            sources.append(np.full(table.num_rows, source, np.int32))
    if not times:
        return NO_INTERACTIONS
    user_ids, user = numbered(users)
    item_ids, item = numbered(items)
    rows = Interactions(
        user_ids, item_ids, user, item, np.concatenate(times), np.concatenate(weighed)
    )
    limits = deletion_limits(user_ids, imported.deleted(user_ids))
    keep = np.ones(len(user), np.bool_) if limits is None else rows.time_us > limits[user]
    if len(names) > 1:
        keep &= first_source_rows(rows, np.concatenate(sources))
    return rows if keep.all() else rows.some(keep)


def _weights(table: Any, weights: Mapping[str, float]) -> NDArray[np.float32]:
    """Returns the weight of each row; 0 for those to skip."""
    kind = table["kind"].combine_chunks()
    kinds = kind.dictionary.to_pylist()
    of_kind = np.array([weights.get(one, 0.0) if weights else 1.0 for one in kinds])
    of_kind = np.maximum(of_kind[kind.indices.to_numpy()], 0.0)
    own = table["weight"].to_numpy()
    return np.asarray(np.where((own > 0) & (of_kind > 0), own, of_kind), np.float32)
