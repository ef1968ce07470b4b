"""Popularity of items, overall and recent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

_TRENDING_DAYS = 7.0


def popularity(
    interactions: Interactions, decay_days: float = np.inf, now_us: int | None = None
) -> NDArray[np.float32]:
    """Returns the sum of the weights of all interactions with each item: (items,) float32.

    Args:
        decay_days: An interaction t days old counts exp(-t / decay_days).
        now_us: Microseconds since 1970; if None, the time of the newest interaction.
    """
    weights = interactions.weight.astype(np.float64)
    if np.isfinite(decay_days):
        now = interactions.time_us.max(initial=0) if now_us is None else now_us
        weights *= np.exp(-(now - interactions.time_us) / (decay_days * DAY_US))
    return np.bincount(
        interactions.item, weights=weights, minlength=len(interactions.items)
    ).astype(np.float32)


def trending(interactions: Interactions) -> NDArray[np.float32]:
    """Returns recent popularity, computed by `popularity`: (items,) float32.

    A week-old interaction counts 1 / e. If all interactions lie within four weeks, this age is a
    quarter of their time span instead, since a week would be most of it.
    """
    time_us = interactions.time_us
    days = (time_us.max() - time_us.min()) / DAY_US if len(time_us) else 0.0
    return popularity(interactions, min(_TRENDING_DAYS, days / 4) or np.inf)
