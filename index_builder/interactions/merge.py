"""Merges interactions of several sources; an interaction present in both counts once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US, SECOND_US
from retrieval.behaviour.history import UserHistories

_INT64_MAX = int(np.iinfo(np.int64).max)
_Numbers = NDArray[np.int32]
_Long = NDArray[np.int64]

NO_INTERACTIONS = Interactions(
    [],
    [],
    np.empty(0, np.int32),
    np.empty(0, np.int32),
    np.empty(0, np.int64),
    np.empty(0, np.float32),
)


class MergedInteractions(NamedTuple):
    """Interactions of two sources. added: Number of those only in the second."""

    interactions: Interactions
    added: int


def merge_interactions(rows: Interactions, new: Interactions) -> MergedInteractions:
    """Adds interactions that the rows lack; equal user, item and second mean the same interaction.

    Duplicates within one source are kept, since rows of one order may be equal.
    """
    if not len(rows.user):
        return MergedInteractions(new, len(new.user))
    users, user = _renumbered(rows.users, new.users, new.user)
    items, item = _renumbered(rows.items, new.items, new.item)
    new = Interactions(users, items, user, item, new.time_us, new.weight)
    new = new.some(~_is_known(rows, new))
    if not len(new.user):
        return MergedInteractions(rows, 0)
    both = Interactions(
        users,
        items,
        np.concatenate([rows.user, new.user]),
        np.concatenate([rows.item, new.item]),
        np.concatenate([rows.time_us, new.time_us]),
        np.concatenate([rows.weight, new.weight]),
    )
    return MergedInteractions(both, len(new.user))


def first_source_rows(rows: Interactions, source: _Numbers) -> NDArray[np.bool_]:
    """Returns which rows are of the first source that has their user, item and second.

    source: (n,) number of the source of each row, not descending.
    """
    # The first row of each interaction is of its first source.
    _, first, same = np.unique(_row_keys(rows), return_index=True, return_inverse=True)
    return np.asarray(source == source[first[same]])


def interactions_from_histories(histories: UserHistories, ids: Sequence[str]) -> Interactions:
    """Returns the interactions of histories by user, each user's in order of time.

    The inverse of `tables.build_histories`.

    Args:
        ids: Ids of the items, by number.
    """
    starts = histories.starts
    user = np.repeat(np.arange(len(histories.users)), np.diff(starts))
    # Histories are newest first.
    order = starts[user] + starts[user + 1] - 1 - np.arange(len(user))
    return Interactions(
        list(histories.users),
        ids,
        user.astype(np.int32),
        histories.items[order],
        histories.time_us[order],
        histories.weight[order],
    )


def drop_older(rows: Interactions, days: int) -> Interactions:
    """Drops interactions more than this many days older than the newest; 0 drops none.

    Future times count as now, so that a single wrong time does not drop everything else.
    """
    if not days or not len(rows.user):
        return rows
    newest_us = min(int(rows.time_us.max()), time.time_ns() // 1_000)
    return rows.some(rows.time_us >= newest_us - days * DAY_US)


def _renumbered(
    ids: Sequence[str], others: Sequence[str], numbers: _Numbers
) -> tuple[Sequence[str], _Numbers]:
    """Returns the ids of both sequences, each once, and the numbers of the others among them."""
    places = {one: at for at, one in enumerate(ids)}
    new = [places.setdefault(one, len(places)) for one in others]
    return list(places), np.array(new, np.int32)[numbers]


def _is_known(rows: Interactions, new: Interactions) -> NDArray[np.bool_]:
    """Returns which new interactions the rows contain; both use the numbers of the new ones."""
    user, item, time_us = (
        np.concatenate([getattr(rows, name), getattr(new, name)])
        for name in ("user", "item", "time_us")
    )
    keys = _row_keys(new._replace(user=user, item=item, time_us=time_us))
    return np.isin(keys[len(rows.user) :], keys[: len(rows.user)])


def _row_keys(rows: Interactions) -> _Long:
    """Returns a number for each row, equal for the same user, item and second only."""
    second = rows.time_us // SECOND_US
    pair = _pair_keys(rows.user.astype(np.int64), rows.item.astype(np.int64))
    return _pair_keys(pair, second - second.min(initial=_INT64_MAX))


def _pair_keys(high: _Long, low: _Long) -> _Long:
    """Returns a number for each pair of non-negative numbers, equal for equal pairs only."""
    width = int(low.max(initial=0)) + 1
    if (int(high.max(initial=0)) + 1) * width > _INT64_MAX:
        # Ranks among the occurring values fit into int64.
        high, low = (np.unique(one, return_inverse=True)[1] for one in (high, low))
        width = int(low.max(initial=0)) + 1
    return high * width + low
