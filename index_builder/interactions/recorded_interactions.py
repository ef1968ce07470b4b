"""Merges recorded interactions with those of a file, and drops deleted users."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.merge import MergedInteractions, merge_interactions
from index_builder.interactions.records import Interactions
from nearline.contract import Attributes
from retrieval.behaviour.history import UserHistories
from retrieval.users.records import LoggedInteraction

# Returns when users were last deleted, in microseconds since 1970; users never deleted are omitted.
DeletedUsers: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
# Returns the attributes of users; users without any are omitted.
UserAttributes: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, Attributes]]]


async def add_recorded(
    rows: Interactions,
    logged: AsyncIterable[LoggedInteraction],
    weights: Mapping[str, float],
) -> MergedInteractions:
    """Adds logged interactions of users, except those that the file has in the same second.

    Args:
        rows: Rows of the file, cleaned.
        logged: Logged interactions, in any order; interactions of sessions without a user are
            skipped.
        weights: By kind. If empty, every kind weighs 1; if not, other kinds and kinds of weight 0
            are skipped.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    found: list[tuple[int, int, int, float]] = []
    async for one in logged:
        if not one.user_id or (weights and weights.get(one.kind, 0.0) <= 0):
            continue
        user = users.setdefault(one.user_id, len(users))
        item = items.setdefault(one.item_id, len(items))
        weight = weights.get(one.kind, 1.0) if one.weight is None else one.weight
        found.append((user, item, one.time_us, weight))
    if not found:
        return MergedInteractions(rows, 0)
    user_column, item_column, times, counts = zip(*found, strict=True)
    new = Interactions(
        list(users),
        list(items),
        np.array(user_column, np.int32),
        np.array(item_column, np.int32),
        np.array(times, np.int64),
        np.array(counts, np.float32),
    )
    return merge_interactions(rows, new)


async def drop_deleted_users(rows: Interactions, deleted_users: DeletedUsers) -> Interactions:
    """Drops the interactions of users from before they were deleted."""
    limits = deletion_limits(rows.users, await deleted_users(rows.users))
    if limits is None:
        return rows
    return rows.some(rows.time_us > limits[rows.user])


async def drop_deleted_histories(
    histories: UserHistories, deleted_users: DeletedUsers
) -> UserHistories:
    """Drops from histories the interactions of users from before they were deleted."""
    users = list(histories.users)
    limits = deletion_limits(users, await deleted_users(users))
    if limits is None:
        return histories
    of = np.repeat(np.arange(len(users)), np.diff(histories.starts))
    return histories.filtered(histories.time_us > limits[of])


def deletion_limits(users: Sequence[str], deleted: Mapping[str, int]) -> NDArray[np.int64] | None:
    """Returns the time up to which each user's interactions are dropped; None if none are."""
    if not deleted:
        return None
    never = np.iinfo(np.int64).min
    return np.array([deleted.get(one, never) for one in users], np.int64)
