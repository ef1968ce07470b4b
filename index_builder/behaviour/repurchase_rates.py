"""How often, and after how long, users interact with an item again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

# A pause this long begins a new visit, as it ends a session in the service.
_PAUSE_US = 30 * 60 * 1_000_000
# Prior: this many users with the mean rate of all items are added to the users of each item.
PRIOR_USERS = 10
# With fewer gaps, the median is due to chance.
MIN_GAPS = 3
# More different weights are values, such as ratings, instead of kinds of interactions.
_MOST_KINDS = 8
# Share of the interactions that a kind has at least: one with a wrong weight is none.
_COMMON = 0.01


class RepurchaseRates(NamedTuple):
    """Repurchase statistics of items.

    rate: (items,) float32, 0..1: the share of an item's users who had it on a second visit,
        (repeated + 10 mean) / (users + 10), where mean is that share over all pairs of a user and
        an item. With few users it stays near the mean. 0 for an item without users.
    days: (items,) float32 >= 0, median days between a visit with the item and the next one of the
        same user; 0 if there are fewer than three such gaps.
    """

    rate: NDArray[np.float32]
    days: NDArray[np.float32]


def measure_repurchases(rows: Interactions) -> RepurchaseRates:
    """Returns statistics over visits: a visit ends with a pause of more than half an hour.

    If kinds of interactions have weights, those count that weigh at least half of the heaviest:
    users may view a fridge on many visits before they buy one.
    """
    weights, counts = np.unique(rows.weight, return_counts=True)
    kinds = weights[counts >= _COMMON * len(rows.weight)]
    if 1 < len(kinds) <= _MOST_KINDS:
        rows = rows.some(rows.weight >= kinds[-1] / 2)
    items = len(rows.items)
    user, item, time_us = _visits(rows)
    # The visits of one user with one item are adjacent, in order of time.
    same = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
    first = np.concatenate(([True], ~same)) if len(user) else np.empty(0, np.bool_)
    users = np.bincount(item[first], minlength=items)
    # The second visit of a pair follows its first.
    second = np.flatnonzero(first[:-1] & same) + 1
    repeated = np.bincount(item[second], minlength=items)
    mean = len(second) / max(int(users.sum()), 1)
    rate = np.where(users, (repeated + PRIOR_USERS * mean) / (users + PRIOR_USERS), 0)
    gaps = np.flatnonzero(same) + 1
    days = _medians(item[gaps], (time_us[gaps] - time_us[gaps - 1]) / DAY_US, items)
    return RepurchaseRates(rate.astype(np.float32), days)


def _visits(
    rows: Interactions,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Returns user, item and first time of each visit with an item, sorted in this order."""
    rows = rows.by_time()
    begins = np.ones(len(rows.user), np.bool_)
    begins[1:] = (rows.user[1:] != rows.user[:-1]) | (np.diff(rows.time_us) > _PAUSE_US)
    visit = np.cumsum(begins)
    order = np.lexsort((rows.time_us, visit, rows.item, rows.user))
    user, item, visit = rows.user[order], rows.item[order], visit[order]
    kept = np.ones(len(order), np.bool_)
    # Visit numbers continue from user to user.
    kept[1:] = (item[1:] != item[:-1]) | (visit[1:] != visit[:-1])
    return user[kept], item[kept], rows.time_us[order][kept]


def _medians(
    item: NDArray[np.int32], values: NDArray[np.float64], items: int
) -> NDArray[np.float32]:
    """Returns the median of each item's values, 0 if there are too few: (items,) float32."""
    order = np.lexsort((values, item))
    counts = np.bincount(item, minlength=items)
    ends = np.cumsum(counts)
    known = counts >= MIN_GAPS
    sorted_values = values[order]
    first = (ends - counts)[known]
    low, high = first + (counts[known] - 1) // 2, first + counts[known] // 2
    medians = np.zeros(items, np.float32)
    medians[known] = (sorted_values[low] + sorted_values[high]) / 2
    return medians
