"""Removes interactions that mislead a model: bots, duplicates, and rare users and items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import InteractionReport, Interactions
from nearline.errors import InvalidRequest
from nearline.times import DAY_US

# Reasons why a row is left out.
BOT = "a user who is a bot"
DUPLICATE = "a duplicate of an earlier row"
RARE_USER = "a user with too few interactions"
RARE_ITEM = "an item with too few interactions"

# With windows up to a day, sums over 100 million rows fit an int64.
MAX_DUPLICATE_S = 86_400.0

_Bools = NDArray[np.bool_]


class CleaningRules(NamedTuple):
    """Which rows are left out, in this order.

    max_per_user_day: A user with more rows than this within a day (UTC) is a bot, and all of its
        rows are left out; 0 disables the rule.
    duplicate_s: Seconds, 0 to 86,400. A row is left out if the last kept row of its user and item
        is at most this much earlier; 0 disables the rule, since rows of one order may be equal.
    min_per_user, min_per_item: Minimum number of rows of a user and of an item; applied until every
        remaining user and item has enough.
    """

    min_per_user: int = 1
    min_per_item: int = 1
    max_per_user_day: int = 0
    duplicate_s: float = 0.0


def clean(
    interactions: Interactions, rules: CleaningRules
) -> tuple[Interactions, InteractionReport]:
    """Leaves out rows; the others stay in order, and users and items keep their numbers.

    Of rows with equal user, item and time, the first in the file is the earlier.

    Raises: InvalidRequest: a rule is out of range, or leaves no row.
    """
    _check(rules)
    left_out: dict[str, int] = {}
    keep = ~_bot_rows(interactions, rules.max_per_user_day)
    left_out[BOT] = int(np.count_nonzero(~keep))
    # Numbers of the remaining rows.
    rows = np.flatnonzero(keep)
    if rules.duplicate_s:
        duplicates = _duplicates(interactions.some(rows), round(rules.duplicate_s * 1e6))
        left_out[DUPLICATE] = int(np.count_nonzero(duplicates))
        rows = rows[~duplicates]
    rows = _frequent_rows(interactions, rows, rules, left_out)
    report = InteractionReport(
        len(keep), len(rows), {reason: count for reason, count in left_out.items() if count}
    )
    if not report.kept:
        reasons = "; ".join(f"{count} of {reason}" for reason, count in report.left_out.items())
        raise InvalidRequest(
            f"none of {report.rows} interactions is left: {reasons or 'there were none'}; "
            "loosen the rules",
            field="rules",
        )
    return interactions.some(rows), report


def _check(rules: CleaningRules) -> None:
    for name, least in (("min_per_user", 1), ("min_per_item", 1), ("max_per_user_day", 0)):
        value = getattr(rules, name)
        if value < least:
            raise InvalidRequest(f"{name} is {value}; it must be at least {least}", field=name)
    if not 0 <= rules.duplicate_s <= MAX_DUPLICATE_S:
        raise InvalidRequest(
            f"duplicate_s is {rules.duplicate_s}; it must be 0 to {MAX_DUPLICATE_S:.0f} seconds",
            field="duplicate_s",
        )


def _bot_rows(interactions: Interactions, limit: int) -> _Bools:
    """Returns which rows are of users with more rows than the limit in a day; none if it is 0."""
    user = interactions.user
    bots = np.zeros(len(interactions.users), np.bool_)
    if limit and len(user):
        day = interactions.time_us // DAY_US
        first, last = day.min(), day.max()
        user_day = user.astype(np.int64) * (last - first + 1) + (day - first)
        _, at, counts = np.unique(user_day, return_index=True, return_counts=True)
        bots[user[at[counts > limit]]] = True
    return bots[user]


def _duplicates(interactions: Interactions, window_us: int) -> _Bools:
    """Returns which rows follow the last kept row of their user and item within a window."""
    user, item, time_us = interactions.user, interactions.item, interactions.time_us
    order = np.lexsort((time_us, item, user))
    # Runs of rows, each at most a window after the one before it; the first of a run is kept.
    gap = np.diff(time_us[order], prepend=0)
    same = np.diff(user[order], prepend=-1) == 0
    same &= np.diff(item[order], prepend=-1) == 0
    heads = ~(same & (gap <= window_us))
    keep = heads.copy()
    # One clock for all rows that continues across runs: finding the next row to keep is then a
    # binary search, done for all runs in parallel.
    clock = np.cumsum(np.where(heads, window_us + 1, gap))
    last = np.flatnonzero(heads)
    while len(last):
        following = np.searchsorted(clock, clock[last] + window_us, side="right")
        following = following[following < len(order)]
        last = following[~heads[following]]
        keep[last] = True
    duplicates = np.empty(len(order), np.bool_)
    duplicates[order] = ~keep
    return duplicates


def _frequent_rows(
    interactions: Interactions,
    rows: NDArray[np.int64],
    rules: CleaningRules,
    left_out: dict[str, int],
) -> NDArray[np.int64]:
    """Returns the rows left when every user and item has enough; counts those left out."""
    sides = (
        (RARE_USER, interactions.user, rules.min_per_user),
        (RARE_ITEM, interactions.item, rules.min_per_item),
    )
    settled = False
    while not settled:
        before = len(rows)
        for reason, numbers, least in sides:
            of_row = numbers[rows]
            frequent = (np.bincount(of_row) >= least)[of_row]
            left_out[reason] = left_out.get(reason, 0) + int(np.count_nonzero(~frequent))
            rows = rows[frequent]
        settled = len(rows) == before
    return rows
