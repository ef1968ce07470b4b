"""What a running service recorded, beside what a file has; and without users who were deleted."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from retrieval.behaviour.histories import Histories
from retrieval.users.records import LoggedInteraction

_SECOND_US = 1_000_000
# Tells when users were deleted last, in microseconds since 1970; those that never were are left
# out.
Erased: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]


class Joined(NamedTuple):
    """Interactions of a file and of the log. added: Those of the log that the file lacks."""

    interactions: Interactions
    added: int


async def with_recorded(
    rows: Interactions,
    logged: AsyncIterable[LoggedInteraction],
    weights: Mapping[str, float],
) -> Joined:
    """Adds what the log has of users; what the file has of the same second is the same.

    Args:
        rows: Of the file, cleaned.
        logged: In any order. What was done in a session without a user is passed over.
        weights: By kind; others count 1, but are passed over where any kind is named.
    """
    users = {one: at for at, one in enumerate(rows.users)}
    items = {one: at for at, one in enumerate(rows.items)}
    known = set(
        zip(rows.user.tolist(), rows.item.tolist(), (rows.time_us // _SECOND_US).tolist(),
            strict=True)
    )  # fmt: skip
    added: list[tuple[int, int, int, float]] = []
    async for one in logged:
        if not one.user_id or (weights and one.kind not in weights):
            continue
        user = users.setdefault(one.user_id, len(users))
        item = items.setdefault(one.item_id, len(items))
        if (user, item, one.time_us // _SECOND_US) not in known:
            weight = weights.get(one.kind, 1.0) if one.weight is None else one.weight
            added.append((user, item, one.time_us, weight))
    if not added:
        return Joined(rows, 0)
    user_column, item_column, times, counts = zip(*added, strict=True)
    joined = Interactions(
        list(users),
        list(items),
        np.concatenate([rows.user, np.array(user_column, np.int32)]),
        np.concatenate([rows.item, np.array(item_column, np.int32)]),
        np.concatenate([rows.time_us, np.array(times, np.int64)]),
        np.concatenate([rows.weight, np.array(counts, np.float32)]),
    )
    return Joined(joined, len(added))


async def without_erased(rows: Interactions, erased: Erased) -> Interactions:
    """Leaves out what users did before they were deleted."""
    limits = _limits(rows.users, await erased(rows.users))
    if limits is None:
        return rows
    return rows.some(rows.time_us > limits[rows.user])


async def forgotten(histories: Histories, erased: Erased) -> Histories:
    """Leaves out of histories what users did before they were deleted."""
    users = list(histories.users)
    limits = _limits(users, await erased(users))
    if limits is None:
        return histories
    of = np.repeat(np.arange(len(users)), np.diff(histories.starts))
    return histories.some(histories.time_us > limits[of])


def _limits(users: Sequence[str], deleted: Mapping[str, int]) -> NDArray[np.int64] | None:
    """Gives for each user the time up to which everything goes; None: nobody was deleted."""
    if not deleted:
        return None
    never = np.iinfo(np.int64).min
    return np.array([deleted.get(one, never) for one in users], np.int64)
