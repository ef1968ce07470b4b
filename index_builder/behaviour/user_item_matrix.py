"""Interactions as a user-item matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US


def users_by_items(
    interactions: Interactions, *, counts: bool = False, decay_days: float = np.inf
) -> Any:
    """Returns a (users, items) float32 CSR matrix with ascending columns.

    Args:
        counts: Whether a cell is the sum of the weights of its interactions; if not, it is 1.
        decay_days: An interaction t days older than the newest weighs exp(-t / decay_days).
    """
    shape = (len(interactions.users), len(interactions.items))
    weight = interactions.weight
    if np.isfinite(decay_days):
        age_us = interactions.time_us.max(initial=0) - interactions.time_us
        weight = weight * np.exp(-age_us / (decay_days * DAY_US)).astype(np.float32)
    cells = (weight, (interactions.user, interactions.item))
    matrix = sp.csr_matrix(cells, shape=shape, dtype=np.float32)
    matrix.sum_duplicates()
    if not counts:
        matrix.data[:] = 1
    return matrix


def item_counts(interactions: Interactions) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the number of interactions with each item: (items,) int64."""
    return np.bincount(interactions.item, minlength=len(interactions.items))
