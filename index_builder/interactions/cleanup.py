"""Leaving out what misleads a model: bots, rows told twice, users and items hardly seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import InteractionReport, Interactions
from nearline.errors import InvalidRequest
from nearline.times import DAY_US

# Why a row is left out.
BOT = "a user who is a bot"
DUPLICATE = "what was there just before"
FEW_OF_USER = "a user of too few"
FEW_OF_ITEM = "an item of too few"

# Up to a day, sums of windows over 100 million rows stay within an int64.
MAX_DUPLICATE_S = 86_400.0

_Bools = NDArray[np.bool_]


class CleaningRules(NamedTuple):
    """What is left out, in this order.

    max_per_user_day: A user with more rows than this within a day (UTC) is a bot, all of whose rows
        go; 0: nobody is.
    duplicate_s: Seconds, 0 to 86,400. A row goes if the last kept row of its user and item is at
        most so much earlier; 0: none does, since lines of one basket may be equal.
    min_per_user, min_per_item: Rows that a user and an item must have; those of others go, until
        every user and item has enough.
    """

    min_per_user: int = 1
    min_per_item: int = 1
    max_per_user_day: int = 0
    duplicate_s: float = 0.0


def clean(
    interactions: Interactions, rules: CleaningRules
) -> tuple[Interactions, InteractionReport]:
    """Leaves out rows; the others stay in their order, and users and items keep their numbers.

    Of rows of one user and item at one time the first in the file is the earlier.

    Raises: InvalidRequest: a rule is out of its range, or leaves no row.
    """
    _check(rules)
    left_out: dict[str, int] = {}
    keep = ~_of_bots(interactions, rules.max_per_user_day)
    left_out[BOT] = int(np.count_nonzero(~keep))
    # Rows by number, as fewer are left at each step.
    rows = np.flatnonzero(keep)
    if rules.duplicate_s:
        repeated = _repeated(interactions.some(rows), round(rules.duplicate_s * 1e6))
        left_out[DUPLICATE] = int(np.count_nonzero(repeated))
        rows = rows[~repeated]
    rows = _of_enough(interactions, rows, rules, left_out)
    report = InteractionReport(
        len(keep), len(rows), {reason: count for reason, count in left_out.items() if count}
    )
    if not report.kept:
        reasons = "; ".join(f"{count} of {reason}" for reason, count in report.left_out.items())
        raise InvalidRequest(
            f"no interaction is left of {report.rows}: {reasons or 'there was none'}; "
            "loosen the rules",
            field="rules",
        )
    return interactions.some(rows), report


def _check(rules: CleaningRules) -> None:
    for name, least in (("min_per_user", 1), ("min_per_item", 1), ("max_per_user_day", 0)):
        value = getattr(rules, name)
        if value < least:
            raise InvalidRequest(f"{name} is {value}; give {least} or more", field=name)
    if not 0 <= rules.duplicate_s <= MAX_DUPLICATE_S:
        raise InvalidRequest(
            f"duplicate_s is {rules.duplicate_s}; give 0 to {MAX_DUPLICATE_S:.0f} seconds",
            field="duplicate_s",
        )


def _of_bots(interactions: Interactions, most: int) -> _Bools:
    """Returns which rows are of users with more than so many in a day; 0: none."""
    user = interactions.user
    bots = np.zeros(len(interactions.users), np.bool_)
    if most and len(user):
        day = interactions.time_us // DAY_US
        first, last = day.min(), day.max()
        user_day = user.astype(np.int64) * (last - first + 1) + (day - first)
        _, at, counts = np.unique(user_day, return_index=True, return_counts=True)
        bots[user[at[counts > most]]] = True
    return bots[user]


def _repeated(interactions: Interactions, window_us: int) -> _Bools:
    """Returns which rows follow the last kept row of their user and item within a window."""
    user, item, time_us = interactions.user, interactions.item, interactions.time_us
    order = np.lexsort((time_us, item, user))
    # Stretches of rows, each at most a window after the one before it: the first stays.
    gap = np.diff(time_us[order], prepend=0)
    same = np.diff(user[order], prepend=-1) == 0
    same &= np.diff(item[order], prepend=-1) == 0
    heads = ~(same & (gap <= window_us))
    keep = heads.copy()
    # One clock for all rows, which runs on between stretches: the next row to be kept after each is
    # then a search. Kept rows of all stretches are followed side by side.
    clock = np.cumsum(np.where(heads, window_us + 1, gap))
    last = np.flatnonzero(heads)
    while len(last):
        following = np.searchsorted(clock, clock[last] + window_us, side="right")
        following = following[following < len(order)]
        last = following[~heads[following]]
        keep[last] = True
    repeated = np.empty(len(order), np.bool_)
    repeated[order] = ~keep
    return repeated


def _of_enough(
    interactions: Interactions,
    rows: NDArray[np.int64],
    rules: CleaningRules,
    left_out: dict[str, int],
) -> NDArray[np.int64]:
    """Returns the rows left when every user and item has enough, and counts the others."""
    sides = (
        (FEW_OF_USER, interactions.user, rules.min_per_user),
        (FEW_OF_ITEM, interactions.item, rules.min_per_item),
    )
    settled = False
    while not settled:
        before = len(rows)
        for reason, numbers, least in sides:
            mine = numbers[rows]
            enough = (np.bincount(mine) >= least)[mine]
            left_out[reason] = left_out.get(reason, 0) + int(np.count_nonzero(~enough))
            rows = rows[enough]
        settled = len(rows) == before
    return rows
