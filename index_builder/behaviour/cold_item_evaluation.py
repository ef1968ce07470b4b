"""How good lists of items are that nobody had yet, made of what the items say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.content_factors import explained_shares, predict_factors
from index_builder.behaviour.evaluation_task import make_task
from index_builder.behaviour.model_evaluation import Evaluation, measure_generators
from index_builder.behaviour.user_item_matrix import item_counts, users_by_items
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split
from nearline.errors import InvalidRequest
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.generator_spec import ALL_EVENTS
from retrieval.behaviour.history import History

RANDOM, AVERAGE, CONTENT = "random", "content_average", "content"
# Fewer cannot be parted into folds that say anything.
_LEAST_ITEMS = 10


class RandomOrder:
    """Scores items at random, for each user again; what any model must be better than."""

    def __init__(self, items: int, seed: int = 0) -> None:
        self._items = items
        self._rng = np.random.default_rng(seed)

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32 in 0..1."""
        return self._rng.random(self._items, np.float32)


class ContentAverage(NamedTuple):
    """Scores items by the cosine with the mean content of what the user had.

    content: (items, d) float32, rows of unit length; of zeros where nothing is known.
    """

    content: NDArray[np.float32]

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32 in -1..1, up to one positive factor of the user."""
        scores: NDArray[np.float32] = self.content @ self.content[history.items].sum(axis=0)
        return scores


def holds_out_items(how: str) -> bool:
    """Returns whether a split holds out items, of which models of behaviour alone know nothing."""
    return how.partition(":")[0] == "cold-items"


def evaluate_cold_items(
    interactions: Interactions,
    how: str,
    k: int,
    content: NDArray[np.float32],
    *,
    seed: int = 0,
) -> Evaluation:
    """Ranks the items held out for the users who had one of them, among nothing but them.

    Args:
        how: "cold-items:F", see `splits.split`. k: Places of a list.
        content: (items, d), rows of unit length in the order of `interactions.items`; of zeros
            where nothing is known of what the item says.
    Raises: InvalidRequest: no such split, too few items to learn from, or no user had one held out
        and one other.
    """
    parts = split(interactions, how, seed)
    task = make_task(parts)
    counts = item_counts(parts.train)
    usable = np.count_nonzero(content.any(axis=1) & (counts > 0))
    if usable < _LEAST_ITEMS or not len(task.users):
        raise InvalidRequest(
            f"{how} leaves {usable} items to learn from of which the corpus says something, and "
            f"{len(task.users)} users to test; {_LEAST_ITEMS} and 1 are needed: hold out less, or "
            "check --id-column",
            field="split",
        )
    factors = train_factors(users_by_items(parts.train), AlsOptions(), seed, threads=1)
    shares = explained_shares(content, factors.vectors, counts)
    best = max(shares, key=shares.__getitem__)
    vectors = predict_factors(content, factors.vectors, counts, best)
    # The sums stay those of the training: that nobody had a new item tells nothing against it.
    # All that a user did counts: new items are held out at random, not those that come next.
    placed = FactorGenerator(factors._replace(vectors=vectors), newest=ALL_EVENTS)
    generators: list[tuple[str, str, Generator]] = [
        (RANDOM, "", RandomOrder(len(content), seed)),
        (AVERAGE, "", ContentAverage(content)),
        (CONTENT, f"regularisation={best:g}", placed),
    ]
    return Evaluation(parts.train, task, None, measure_generators(task, generators, k), shares)
