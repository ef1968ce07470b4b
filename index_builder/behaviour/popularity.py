"""How popular items are at a moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US


def popularity(
    interactions: Interactions, decay_days: float = np.inf, now_us: int | None = None
) -> NDArray[np.float32]:
    """Adds up the weights of all interactions with each item: (items,) float32.

    Args:
        decay_days: One that is t days old counts exp(-t / decay_days).
        now_us: Microseconds since 1970; None: the time of the newest interaction.
    """
    weights = interactions.weight.astype(np.float64)
    if np.isfinite(decay_days):
        now = interactions.time_us.max(initial=0) if now_us is None else now_us
        weights *= np.exp(-(now - interactions.time_us) / (decay_days * DAY_US))
    return np.bincount(
        interactions.item, weights=weights, minlength=len(interactions.items)
    ).astype(np.float32)
