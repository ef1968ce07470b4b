"""Users who walk around a circle of items, so the next item is known."""

from __future__ import annotations

import numpy as np

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

ITEMS = 12


def walks(users: int = 40, steps: int = 9, prefix: str = "i") -> Interactions:
    """Returns walks one item a day: of user n from item 5 n on, named i00 to i11.

    Rows stand in the order of time. Users and items are numbered against the order of their ids.
    """
    step, user = np.divmod(np.arange(users * steps), users)
    return Interactions(
        [f"u{users - 1 - number:03}" for number in range(users)],
        [f"{prefix}{ITEMS - 1 - number:02}" for number in range(ITEMS)],
        (users - 1 - user).astype(np.int32),
        (ITEMS - 1 - (user * 5 + step) % ITEMS).astype(np.int32),
        step * DAY_US,
        np.ones(len(step), np.float32),
    )


def documents(count: int = ITEMS) -> list[str]:
    """Returns the ids of items, ascending; those from the thirteenth on have no interactions."""
    return [f"i{number:02}" for number in range(count)]
