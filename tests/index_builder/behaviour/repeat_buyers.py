"""Users who buy a few items of their own in turn, so the next is the one bought longest ago."""

from __future__ import annotations

import numpy as np

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

ITEMS = 40
_OWN = 5


def rounds(users: int = 130, steps: int = 14, *, at_random: bool = False) -> Interactions:
    """Returns the rows, one a day for each user, in order of time.

    Args:
        at_random: Any item, any day: there is nothing to learn.
    """
    rng = np.random.default_rng(4)
    own = np.array([rng.choice(ITEMS, _OWN, replace=False) for _ in range(users)])
    step, user = np.divmod(np.arange(users * steps), users)
    item = rng.integers(ITEMS, size=len(step)) if at_random else own[user, step % _OWN]
    return Interactions(
        [f"u{number:03}" for number in range(users)],
        [f"i{number:02}" for number in range(ITEMS)],
        user.astype(np.int32),
        item.astype(np.int32),
        step * DAY_US,
        np.ones(len(step), np.float32),
    )
