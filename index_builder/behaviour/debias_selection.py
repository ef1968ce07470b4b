"""Chooses on validation how much the popularity of items is discounted in lists.

The largest discount is chosen that costs almost no accuracy: what is left is novelty and coverage
for free. Lists of items that go with an item may lose more, since accuracy there rewards popular
items that have little to do with the item: whatever users have next counts as relevant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.evaluation_task import EvaluationTask, make_task
from index_builder.behaviour.model_selection import BlendChoice, sample_users
from index_builder.behaviour.popularity import popularity
from index_builder.behaviour.ranker_selection import TrainedRanker
from index_builder.behaviour.user_item_matrix import users_by_items
from index_builder.evaluation.recommendation_metrics import coverage, measure, novelty
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from index_builder.options.training_options import TrainingOptions
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import Generator, without_history
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity_discount import (
    WINDOW,
    discount_popularity,
    popularity_levels,
)
from retrieval.behaviour.tables import SESSIONS

# Shares of the best NDCG that the discount may cost.
USER_TOLERANCE: Final = 0.01
SIMILAR_TOLERANCE: Final = 0.05
# With fewer users, an accuracy within the tolerance is a matter of chance.
MIN_USERS: Final = 100
_VALUES: Final = tuple(step / 20 for step in range(21))

Ranking: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


class DebiasChoice(NamedTuple):
    """The discounts of a snapshot.

    similar: For lists of items that go with others. by_repeats: For lists for a user, by whether
    they may repeat items that the user had.
    """

    similar: snapshot_pb2.DebiasCard
    by_repeats: dict[bool, snapshot_pb2.DebiasCard]


class Popularity(NamedTuple):
    """Popularity of the items of a training part.

    levels: See `popularity_levels`. users_of: (items,), users who had each item. users: All users.
    """

    levels: NDArray[np.float32]
    users_of: NDArray[np.int64]
    users: int


def measure_popularity(rows: Interactions) -> Popularity:
    """Returns the popularity of the items in some interactions."""
    matrix = users_by_items(rows)
    users = int(np.count_nonzero(matrix.getnnz(axis=1)))
    return Popularity(popularity_levels(popularity(rows)), matrix.getnnz(axis=0), users)


def unmeasured(value: float | None) -> snapshot_pb2.DebiasCard:
    """Returns the card of a discount that cannot be validated: the given value, or none."""
    return snapshot_pb2.DebiasCard(value=value or 0.0, fixed=value is not None)


def select_debias(
    learning: TrainingOptions,
    window: Split,
    trial: Sequence[CandidateGenerator],
    choices: Mapping[bool, BlendChoice | None],
    rankers: Mapping[bool, TrainedRanker],
    only_known: bool,
    seed: int,
) -> DebiasChoice:
    """Selects the discounts of a snapshot on its validation window, for the lists that will serve.

    Args:
        learning: Options of the training.
        window: The validation window.
        trial: Candidates trained on the training part of the window.
        choices, rankers: The blends and rankers that will serve, by whether their lists may repeat
            items; a blend is None if there were too few users to choose one.
        only_known: See `make_task`.
    """
    fixed, k = learning.popularity_debias, learning.k
    known = measure_popularity(window.train)
    found = DebiasChoice(unmeasured(fixed), {})
    for repeats, choice in choices.items():
        found.by_repeats[repeats] = unmeasured(fixed)
        if choice is None:
            continue
        task = sample_users(make_task(window, repeats=repeats, only_known=only_known), seed)
        generator = validated(window, trial, choice, rankers.get(repeats), repeats=repeats)
        rankings = user_rankings(generator, task)
        found.by_repeats[repeats] = choose_debias(
            rankings, task.relevant, known, k, tolerance=USER_TOLERANCE, fixed=fixed
        )
        if not repeats:
            sessions = next(one.generator for one in trial if one.table == SESSIONS)
            assert isinstance(sessions, ListGenerator), "sessions are lists"
            similar = similar_rankings(sessions.lists, task)
            found = found._replace(
                similar=choose_debias(
                    similar, task.relevant, known, k, tolerance=SIMILAR_TOLERANCE, fixed=fixed
                )
            )
    return found


def validated(
    window: Split,
    trial: Sequence[CandidateGenerator],
    choice: BlendChoice,
    trained: TrainedRanker | None,
    *,
    repeats: bool,
) -> Generator:
    """Returns what will serve as it was before the validation window: a blend or its ranker."""
    if trained is None or not trained.card.kept:
        return choice.blend(trial, repeats=repeats)
    # The trees that will serve have learned from this window.
    unseen = trained._replace(text=trained.trial)
    return unseen.ranker(window.train, trial, choice.weights, repeats=repeats)


def user_rankings(generator: Generator, task: EvaluationTask) -> list[Ranking]:
    """Returns the best `WINDOW` items for each user of a task, as a router ranks them."""
    rankings = []
    for history in task.histories:
        allowed = task.candidates
        if not task.repeats:
            allowed = without_history(allowed, history)
        best = generator.best(history, allowed, WINDOW).positive()
        numbers, scores = best.ranked()
        rankings.append((numbers.astype(np.int32), scores))
    return rankings


def similar_rankings(lists: ItemLists, task: EvaluationTask) -> list[Ranking]:
    """Returns, for each user of a task, the items that go with the user's newest item."""
    rankings = []
    for history in task.histories:
        numbers, scores = lists.of(int(history.items[0]))
        free = task.candidates[numbers] & ~np.isin(numbers, history.items)
        rankings.append((numbers[free], scores[free]))
    return rankings


def choose_debias(
    rankings: Sequence[Ranking],
    relevant: Sequence[NDArray[np.int32]],
    known: Popularity,
    k: int,
    *,
    tolerance: float,
    fixed: float | None = None,
) -> snapshot_pb2.DebiasCard:
    """Returns the largest discount whose NDCG@k is at most a share below the best.

    Returns no discount if it makes nothing more novel, or if there are too few users to tell.

    Args:
        rankings: For each user, items and scores, best first.
        relevant: For each user, the items that the user had later.
        known: Popularity in the training part.
        k: Length of a list.
        tolerance: The share, 0..1.
        fixed: A discount to measure instead of choosing one. Optional.
    """
    values = _VALUES if fixed is None else (0.0, fixed)
    lists = {value: discounted_lists(rankings, known.levels, value, k) for value in values}
    ndcg = {one: float(measure(top, relevant, k).ndcg.mean()) for one, top in lists.items()}
    new = {one: novelty(top, known.users_of, known.users, k) for one, top in lists.items()}
    chosen = fixed
    if chosen is None:
        least = (1 - tolerance) * max(ndcg.values())
        chosen = max((one for one in values if ndcg[one] >= least), default=0.0)
        if len(rankings) < MIN_USERS or new[chosen] <= new[0]:
            chosen = 0.0
    trained = int(np.count_nonzero(known.users_of))
    found = {one: coverage(lists[one], trained, k) for one in (0, chosen)}
    return snapshot_pb2.DebiasCard(
        value=chosen,
        fixed=fixed is not None,
        users=len(rankings),
        ndcg=ndcg[chosen],
        undiscounted_ndcg=ndcg[0],
        novelty=new[chosen],
        undiscounted_novelty=new[0],
        coverage=found[chosen],
        undiscounted_coverage=found[0],
    )


def discounted_lists(
    rankings: Iterable[Ranking], levels: NDArray[np.float32], debias: float, k: int
) -> NDArray[np.int32]:
    """Returns the first k items of each ranking with a discount, padded by -1."""
    rows = []
    for numbers, scores in rankings:
        best = discount_popularity(numbers, scores, levels[numbers], debias)[0][:k]
        rows.append(np.pad(best, (0, k - len(best)), constant_values=-1))
    return np.array(rows, np.int32).reshape(len(rows), k)
