"""Metrics of recommendation lists, per user against held out items and over all lists.

Lists are (u, >= k) int32 item numbers, best first, without repetitions; -1 pads short lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class UserMetrics(NamedTuple):
    """Metrics of the first k items of each user's list: (u,) float64 each, 0..1.

    ndcg: Gain 1 for a relevant item, discounted by log2(rank + 1), divided by the ideal.
    recall: Share of the relevant items in the list. hit_rate: 1 if there is any, else 0.
    mrr: 1 / rank of the first relevant item; 0 if there is none.
    """

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]
    hit_rate: NDArray[np.float64]
    mrr: NDArray[np.float64]


def measure(lists: NDArray[np.int32], relevant: Sequence[NDArray[np.int32]], k: int) -> UserMetrics:
    """Compares lists with the items that their users had afterwards.

    Source of ndcg: Järvelin and Kekäläinen 2002, with gains of 0 and 1.

    Args:
        relevant: Distinct items of each user, at least one.
        k: At least 1.
    Raises:
        ValueError: The lists are shorter than k, their number differs from that of the users, or
            a user has no relevant item.
    """
    top = _first_k(lists, k)
    counts = np.array([len(items) for items in relevant], np.int64)
    if len(counts) != len(top):
        raise ValueError(f"{len(top)} lists for {len(counts)} users: pass one for each")
    if not counts.all():
        user = int(np.argmin(counts))
        raise ValueError(f"user {user} has no relevant item: leave out such users")
    hits = _hits(top, relevant, counts)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discounts)[np.minimum(counts, k) - 1]
    found: NDArray[np.int64] = hits.sum(axis=1)
    return UserMetrics(
        ndcg=hits @ discounts / best,
        recall=found / counts,
        hit_rate=(found > 0).astype(np.float64),
        mrr=(found > 0) / (hits.argmax(axis=1) + 1),
    )


def coverage(lists: NDArray[np.int32], items: int, k: int) -> float:
    """Returns the share of the catalogue among the first k items of all lists, 0..1.

    Args:
        items: Number of recommendable items; at least 1.
    """
    top = _first_k(lists, k)
    return len(np.unique(top[top >= 0])) / items


def novelty(lists: NDArray[np.int32], counts: NDArray[np.int64], users: int, k: int) -> float:
    """Returns the mean self-information of the first k items of all lists, in bits.

    The self-information of an item is -log2(count / users); a count of 0 is taken as 1. Returns 0
    if nothing was recommended.
    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems".

    Args:
        counts: (items,), number of training users that had each item.
        users: Number of training users; at least 1.
    """
    top = _first_k(lists, k)
    had = np.maximum(counts[top[top >= 0]], 1)
    return float(np.log2(users / had).mean()) if len(had) else 0.0


def _first_k(lists: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    if not 1 <= k <= lists.shape[1]:
        raise ValueError(f"k is {k}, lists have length {lists.shape[1]}; use k of 1 up to that")
    return lists[:, :k]


def _hits(
    top: NDArray[np.int32], relevant: Sequence[NDArray[np.int32]], counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    relevant_items = np.concatenate([np.empty(0, np.int32), *relevant])
    # One number per pair of user and item. Items start at 1, since 0 stands for padding (-1).
    width = max(int(top.max(initial=-1)), int(relevant_items.max(initial=-1))) + 2
    starts = np.arange(len(top)) * width + 1
    return np.isin(top + starts[:, np.newaxis], relevant_items + np.repeat(starts, counts))
