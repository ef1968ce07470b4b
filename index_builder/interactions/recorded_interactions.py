"""What a running service recorded, beside what a file has; and without users who were deleted."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.merge import MergedInteractions, merge_interactions
from index_builder.interactions.records import Interactions
from retrieval.behaviour.user_histories import UserHistories
from retrieval.users.records import LoggedInteraction

# Tells when users were deleted last, in microseconds since 1970; those that never were are left
# out.
DeletedUsers: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]


async def add_recorded(
    rows: Interactions,
    logged: AsyncIterable[LoggedInteraction],
    weights: Mapping[str, float],
) -> MergedInteractions:
    """Adds what the log has of users; what the file has of the same second is the same.

    Args:
        rows: Of the file, cleaned.
        logged: In any order. What was done in a session without a user is passed over.
        weights: By kind; others count 1, but are passed over where any kind is named, and so are
            kinds of weight 0.
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
    more = Interactions(
        list(users),
        list(items),
        np.array(user_column, np.int32),
        np.array(item_column, np.int32),
        np.array(times, np.int64),
        np.array(counts, np.float32),
    )
    return merge_interactions(rows, more)


async def drop_deleted_users(rows: Interactions, erased: DeletedUsers) -> Interactions:
    """Leaves out what users did before they were deleted."""
    limits = _limits(rows.users, await erased(rows.users))
    if limits is None:
        return rows
    return rows.some(rows.time_us > limits[rows.user])


async def drop_deleted_histories(histories: UserHistories, erased: DeletedUsers) -> UserHistories:
    """Leaves out of histories what users did before they were deleted."""
    users = list(histories.users)
    limits = _limits(users, await erased(users))
    if limits is None:
        return histories
    of = np.repeat(np.arange(len(users)), np.diff(histories.starts))
    return histories.some(histories.time_us > limits[of])


def _limits(users: Sequence[str], deleted: Mapping[str, int]) -> NDArray[np.int64] | None:
    """Returns for each user the time up to which everything goes; None: nobody was deleted."""
    if not deleted:
        return None
    never = np.iinfo(np.int64).min
    return np.array([deleted.get(one, never) for one in users], np.int64)
