"""How good ranked lists are: for each user against what was held out, and as a whole.

Lists are (u, >= k) int32 item numbers, best first, no item twice in one; -1 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class UserMetrics(NamedTuple):
    """What the first k of each user's list are worth: (u,) float64 each, 0..1.

    ndcg: Gain 1 for a relevant item, discounted by log2(rank + 1), over that of the best list.
    recall: Share of the relevant items that are there. hit_rate: 1 where any is.
    mrr: 1 / rank of the first; 0 where there is none.
    """

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]
    hit_rate: NDArray[np.float64]
    mrr: NDArray[np.float64]


def measure(lists: NDArray[np.int32], relevant: Sequence[NDArray[np.int32]], k: int) -> UserMetrics:
    """Compares lists with what their users had afterwards.

    Source of ndcg: Järvelin and Kekäläinen 2002, with gains of 0 and 1.

    Args:
        relevant: Of each user distinct items, at least one.
        k: At least 1.
    Raises:
        ValueError: The lists are shorter than k, there are more or fewer than users, or nothing is
            relevant to one of them.
    """
    top = _first_k(lists, k)
    counts = np.array([len(items) for items in relevant], np.int64)
    if len(counts) != len(top):
        raise ValueError(f"{len(top)} lists for {len(counts)} users: give one for each")
    if not counts.all():
        user = int(np.argmin(counts))
        raise ValueError(f"nothing is relevant to user {user}: measure those who had something")
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
    """Returns the share of the catalogue that is in the first k of any list, 0..1.

    Args:
        items: How many might have been recommended; at least 1.
    """
    top = _first_k(lists, k)
    return len(np.unique(top[top >= 0])) / items


def novelty(lists: NDArray[np.int32], counts: NDArray[np.int64], users: int, k: int) -> float:
    """Returns the mean self-information of what is in the first k of all lists, in bits.

    That of an item is -log2(count / users); one that nobody had counts as if one user had it. 0
    where nothing was recommended.
    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems".

    Args:
        counts: (items,), of the training users that had each.
        users: Number of training users; at least 1.
    """
    top = _first_k(lists, k)
    had = np.maximum(counts[top[top >= 0]], 1)
    return float(np.log2(users / had).mean()) if len(had) else 0.0


def _first_k(lists: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    if not 1 <= k <= lists.shape[1]:
        raise ValueError(f"the first {k} of lists of {lists.shape[1]}: k is 1 up to their length")
    return lists[:, :k]


def _hits(
    top: NDArray[np.int32], relevant: Sequence[NDArray[np.int32]], counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    relevant_items = np.concatenate([np.empty(0, np.int32), *relevant])
    # One number for each pair of a user and an item. Items start at 1: 0 is for no item (-1).
    width = max(int(top.max(initial=-1)), int(relevant_items.max(initial=-1))) + 2
    starts = np.arange(len(top)) * width + 1
    return np.isin(top + starts[:, np.newaxis], relevant_items + np.repeat(starts, counts))
