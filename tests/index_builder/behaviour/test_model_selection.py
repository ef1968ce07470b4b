"""The popularity table that serves is the best on validation."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.model_selection import BlendChoice, choose_popularity_table
from index_builder.behaviour.popularity import popularity, trending
from index_builder.behaviour.repurchase_rates import measure_repurchases
from index_builder.behaviour.training import train_behaviour
from index_builder.interactions.records import Interactions
from index_builder.options.training_options import TrainingOptions
from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.times import DAY_US
from retrieval.behaviour.generator_names import COUNTS, POPULAR, TRENDING
from retrieval.behaviour.popularity import ItemScores, PopularityGenerator
from retrieval.behaviour.tables import REPEAT_DAYS, REPEAT_RATE
from tests.index_builder.behaviour.trained_snapshots import dense_scores

ANY = PopularityGenerator(ItemScores(np.zeros(1, np.float32)))
CANDIDATES = [
    CandidateGenerator("popular", "plain", ANY, "popularity"),
    CandidateGenerator("popular", "days=15", ANY, "popularity_15d"),
    CandidateGenerator("popular", "days=100", ANY, "popularity_100d"),
    CandidateGenerator("als", "plain", ANY, "factors"),
]


def choice(plain: float, of_15: float, of_100: float) -> BlendChoice:
    alone = {"als plain": 0.9, "popular plain": plain, "popular days=15": of_15}
    return BlendChoice({"als plain": 1.0}, 0.9, {**alone, "popular days=100": of_100})


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        ([choice(0.1, 0.2, 0.15), None], "popularity_15d"),
        ([choice(0.1, 0.05, 0.15), choice(0.9, 0, 0)], "popularity_100d"),
        ([None, choice(0.1, 0.2, 0.1)], "popularity_15d"),
        # Within noise, and without any choice.
        ([choice(0.1, 0.1005, 0.1), None], "popularity"),
        ([choice(0.3, 0.2, 0.1), None], "popularity"),
        ([None, None], "popularity"),
    ],
)
def test_the_best_one_alone_serves(choices: list[BlendChoice | None], table: str) -> None:
    assert choose_popularity_table(choices, CANDIDATES) == table


def changing(days: int = 120) -> Interactions:
    """Returns a changing fashion: in each ten days all users interact with the same five items,
    once.
    """
    rows = [(user, day // 10 * 5 + day % 5, day) for day in range(days) for user in range(30)]
    user, item, day = np.array(sorted(rows, key=lambda row: row[2])).T
    return Interactions(
        [f"u{number:02}" for number in range(30)],
        [f"i{number:03}" for number in range(days // 2)],
        user.astype(np.int32),
        item.astype(np.int32),
        day * DAY_US,
        np.ones(len(user), np.float32),
    )


def test_recent_popularity_serves_if_trends_change() -> None:
    rows = changing()
    found = train_behaviour(
        TrainingOptions(interactions=rows), list(rows.items), 0, lambda steps: None
    )
    assert found.card.popularity_table == "popularity_15d"
    trained = TrainedSnapshot.of(found.card, found.tables)
    assert np.array_equal(dense_scores(trained, POPULAR), popularity(rows, 15.0))
    assert np.array_equal(dense_scores(trained, COUNTS), popularity(rows))
    assert np.array_equal(dense_scores(trained, TRENDING), trending(rows))
    again = measure_repurchases(rows)
    assert np.array_equal(found.tables.popularity[REPEAT_RATE], again.rate)
    assert np.array_equal(found.tables.popularity[REPEAT_DAYS], again.days)
