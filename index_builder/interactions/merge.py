"""Interactions of several sources become one: what two of them have counts once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US, SECOND_US
from retrieval.behaviour.user_histories import UserHistories

_MOST = int(np.iinfo(np.int64).max)
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
    """Interactions of two sources. added: Those of the second that the first lacks."""

    interactions: Interactions
    added: int


def merge_interactions(rows: Interactions, more: Interactions) -> MergedInteractions:
    """Adds what the rows lack: of a user and an item, what is of the same second is the same.

    What one source has twice stays twice: lines of a basket may be equal.
    """
    users, user = _renumbered(rows.users, more.users, more.user)
    items, item = _renumbered(rows.items, more.items, more.item)
    more = Interactions(users, items, user, item, more.time_us, more.weight)
    more = more.some(~_there(rows, more))
    if not len(more.user):
        return MergedInteractions(rows, 0)
    both = Interactions(
        users,
        items,
        np.concatenate([rows.user, more.user]),
        np.concatenate([rows.item, more.item]),
        np.concatenate([rows.time_us, more.time_us]),
        np.concatenate([rows.weight, more.weight]),
    )
    return MergedInteractions(both, len(more.user))


def interactions_from_histories(histories: UserHistories, ids: Sequence[str]) -> Interactions:
    """Returns the interactions of histories by user, those of a user in the order of time.

    `histories_of` makes the same histories of them again.

    Args:
        ids: Of the items, by number.
    """
    starts = histories.starts
    user = np.repeat(np.arange(len(histories.users)), np.diff(starts))
    # Histories have the newest first.
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
    """Leaves out what is more than so many days older than the newest; 0: nothing.

    What is yet to come is as new as now: one wrong time would leave out everything else.
    """
    if not days or not len(rows.user):
        return rows
    newest_us = min(int(rows.time_us.max()), time.time_ns() // 1_000)
    return rows.some(rows.time_us >= newest_us - days * DAY_US)


def _renumbered(
    ids: Sequence[str], others: Sequence[str], numbers: _Numbers
) -> tuple[Sequence[str], _Numbers]:
    """Returns the ids of both, each once, and the numbers of the others among them."""
    places = {one: at for at, one in enumerate(ids)}
    new = [places.setdefault(one, len(places)) for one in others]
    return list(places), np.array(new, np.int32)[numbers]


def _there(rows: Interactions, more: Interactions) -> NDArray[np.bool_]:
    """Returns which of the others the rows have; both are under the numbers of the others."""
    user, item, time_us = (
        np.concatenate([getattr(rows, name), getattr(more, name)])
        for name in ("user", "item", "time_us")
    )
    second = time_us // SECOND_US
    pair = _one_number(user.astype(np.int64), item.astype(np.int64))
    keys = _one_number(pair, second - second.min(initial=_MOST))
    known, asked = np.sort(keys[: len(rows.user)]), keys[len(rows.user) :]
    if not len(known):
        return np.zeros(len(asked), np.bool_)
    at = np.searchsorted(known, asked)
    there: NDArray[np.bool_] = known[np.minimum(at, len(known) - 1)] == asked
    return there


def _one_number(high: _Long, low: _Long) -> _Long:
    """Returns a number for each two of numbers from 0 on; equal ones for equal ones alone."""
    width = int(low.max(initial=0)) + 1
    if (int(high.max(initial=0)) + 1) * width > _MOST:
        # As places among those that there are, they fit.
        high, low = (np.unique(one, return_inverse=True)[1] for one in (high, low))
        width = int(low.max(initial=0)) + 1
    return high * width + low
