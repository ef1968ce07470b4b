"""A shop of a few tastes: users who buy within their own, and their later purchases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.times import DAY_US

USERS, ITEMS, TASTES = 150, 60, 6
DAYS = 12
START_US = 1_700_000_000_000_000


def bought(days: int = DAYS, first: int = 0, seed: int = 1) -> Interactions:
    """Returns what each user bought, one thing a day and none twice, mostly of their own taste.

    Args:
        days: How many. first: The first of them: users are the same, whatever it is.
    """
    rng = np.random.default_rng(seed)
    taste = np.arange(USERS) % TASTES
    order = np.stack([_order(rng, one) for one in taste.tolist()])
    day, user = np.divmod(np.arange(USERS * days), USERS)
    day += first
    return Interactions(
        [f"u{number:03}" for number in range(USERS)],
        [f"i{number:02}" for number in range(ITEMS)],
        user.astype(np.int32),
        order[user, day].astype(np.int32),
        START_US + day * DAY_US,
        np.ones(len(user), np.float32),
    )


def _order(rng: np.random.Generator, taste: int) -> NDArray[np.int64]:
    """Returns all items in the order in which a user buys them, mostly own tastes first."""
    own = np.arange(ITEMS) % TASTES == taste
    return np.argsort(rng.random(ITEMS) + ~own * 0.35)


async def build(folder: Path, interactions: Interactions | None, *, items: int = ITEMS) -> str:
    """Builds a snapshot without promoting it; returns its id."""
    learning = None
    if interactions is not None:
        learning = TrainingOptions(interactions=interactions, validate_on="last-n:2", k=10)
    options = BuildOptions(store=str(folder), golden_queries=20, training=learning, promote=False)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(items, 8)).astype(np.float32)
    made_of = [
        Item(id=f"i{at:02}", text=f"thing {at}", vector=vector) for at, vector in enumerate(vectors)
    ]
    return (await build_snapshot(made_of, options)).snapshot_id
