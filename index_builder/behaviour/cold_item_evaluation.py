"""Evaluates lists of items without interactions, ranked by their content."""

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
from retrieval.behaviour.factors import FactorGenerator, OrderedFactors
from retrieval.behaviour.generator_spec import ALL_EVENTS
from retrieval.behaviour.history import History
from retrieval.protocols.scored_rows import ScoredRows

RANDOM, AVERAGE, CONTENT = "random", "content_average", "content"
# With fewer items, cross-validation folds are too small to mean anything.
_MIN_ITEMS = 10


class RandomOrder:
    """Scores items at random, independently for each user; a baseline for every model."""

    def __init__(self, items: int, seed: int = 0) -> None:
        self._items = items
        self._rng = np.random.default_rng(seed)

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns some of the allowed items, with scores in 0..1."""
        scores = self._rng.random(self._items, np.float32)
        return ScoredRows(np.arange(self._items), scores).within(allowed).best(most)


class ContentAverage(NamedTuple):
    """Scores items by their cosine with the mean content of the user's history.

    content: (items, d) float32, rows of unit length; zeros where the content is unknown.
    """

    content: NDArray[np.float32]

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items; a score is a cosine times a positive factor."""
        scores = self.content @ self.content[history.items].sum(axis=0)
        return ScoredRows(np.arange(len(scores)), scores).within(allowed).best(most)


def holds_out_items(split_name: str) -> bool:
    """Returns whether a split holds out items, which no behavioural model can know."""
    return split_name.partition(":")[0] == "cold-items"


def evaluate_cold_items(
    interactions: Interactions,
    split_name: str,
    k: int,
    content: NDArray[np.float32],
    *,
    seed: int = 0,
) -> Evaluation:
    """Ranks the held-out items, and only these, for each user who interacted with one of them.

    Args:
        split_name: "cold-items:F"; see `splits.split`.
        k: Length of each list.
        content: (items, d), rows of unit length in the order of `interactions.items`; zeros where
            the content is unknown.
    Raises: InvalidRequest: there is no such split, too few items can be learned from, or no user
        has both a held-out item and an item that is not held out.
    """
    parts = split(interactions, split_name, seed)
    task = make_task(parts)
    counts = item_counts(parts.train)
    usable = np.count_nonzero(content.any(axis=1) & (counts > 0))
    if usable < _MIN_ITEMS or not len(task.users):
        raise InvalidRequest(
            f"{split_name} leaves {usable} training items with content and {len(task.users)} users "
            f"to test, but {_MIN_ITEMS} and 1 are needed; hold out fewer items, or check "
            "--id-column",
            field="split",
        )
    factors = train_factors(users_by_items(parts.train), AlsOptions(), seed, threads=1)
    shares = explained_shares(content, factors.vectors, counts)
    best = max(shares, key=shares.__getitem__)
    vectors = predict_factors(content, factors.vectors, counts, best)
    # The gram matrix stays that of the training: new items have no interactions yet, and that is no
    # evidence against them. The whole history counts: held-out items are drawn at random, not from
    # the end.
    factors = factors._replace(vectors=vectors, own=OrderedFactors.of(vectors))
    predicted = FactorGenerator(factors, newest=ALL_EVENTS)
    generators: list[tuple[str, str, Generator]] = [
        (RANDOM, "", RandomOrder(len(content), seed)),
        (AVERAGE, "", ContentAverage(content)),
        (CONTENT, f"regularisation={best:g}", predicted),
    ]
    return Evaluation(parts.train, task, None, measure_generators(task, generators, k), shares)
