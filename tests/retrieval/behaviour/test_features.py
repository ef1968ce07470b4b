"""Features of a history that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nearline.times import DAY_US
from retrieval.behaviour.blend import DEPTH, Blend, Generator, WeightedGenerator, on_common_scale
from retrieval.behaviour.features import (
    FIRST_DAY,
    CandidateFeatures,
    FeatureExtractor,
    FeatureSpec,
    ItemStatistics,
)
from retrieval.behaviour.history import History
from retrieval.behaviour.popularity import BuyAgainGenerator, ItemScores, PopularityGenerator
from retrieval.protocols.scored_rows import ScoredRows
from tests.retrieval.behaviour.dense_scores import dense, spread

POPULAR = np.array([4, 0, 8, 2, 2, 0], np.float32)
TABLES = {
    "popularity": POPULAR,
    "trending": np.array([2, 0, 1, 1, 0, 0], np.float32),
    "repeat_rate": np.array([0.5, 0, 0.25, 0, 0, 0], np.float32),
    "repeat_days": np.array([5, 0, 20, 0, 0, 0], np.float32),
    FIRST_DAY: np.array([90, 0, 100, 111, 50, 0], np.float32),
}
# Day 110: items 0 and 3; day 108: 0; day 100: 0 and 2, twice.
HISTORY = History(
    np.array([0, 3, 0, 0, 2, 2], np.int32),
    np.array([110, 110, 108, 100, 100, 100]) * DAY_US,
    np.array([1, 1, 2, 1, 1, 1], np.float32),
)
EVERYTHING = np.ones(6, np.bool_)
STATISTICS = ItemStatistics.of_tables(TABLES)
GENERATORS: list[Generator] = [
    PopularityGenerator(ItemScores(POPULAR)),
    BuyAgainGenerator(ItemScores(POPULAR), popularity=1e-3),
]


def made(repeats: bool = True, newest_day: float = 0.0) -> FeatureExtractor:
    spec = FeatureSpec(["popular", "again"], [1.0, 2.0], repeats, int(newest_day * DAY_US))
    return FeatureExtractor(spec, GENERATORS, STATISTICS)


def told(features: FeatureExtractor, looked: CandidateFeatures, name: str) -> dict[int, float]:
    row = looked.values[features.spec.names.index(name)]
    return dict(zip(looked.rows.tolist(), row.tolist(), strict=True))


def test_candidates_are_the_allowed_items_of_any_source() -> None:
    assert made().extract(HISTORY, EVERYTHING).rows.tolist() == [0, 2, 3, 4]
    allowed = np.array([True, True, False, True, True, True])
    assert made().extract(HISTORY, allowed).rows.tolist() == [0, 3, 4]
    assert made().extract(HISTORY, ~EVERYTHING).values.shape == (len(made().spec.names), 0)
    # What the user had is no candidate where it is not to come again.
    assert made(repeats=False).extract(HISTORY, EVERYTHING).rows.tolist() == []


def test_scores_and_places_are_those_of_the_sources_and_their_blend() -> None:
    features = made()
    looked = features.extract(HISTORY, EVERYTHING)
    for name, generator in zip(features.spec.sources, GENERATORS, strict=True):
        share = spread(on_common_scale([generator.best(HISTORY, EVERYTHING, DEPTH)])[0], 6)
        for item, score in told(features, looked, f"{name}.score").items():
            assert score == share[item]
    parts = map(WeightedGenerator, GENERATORS, features.spec.weights)
    blended = dense(Blend(list(parts), True), HISTORY, 6)
    assert np.array_equal(spread(ScoredRows(looked.found, looked.blended), 6), blended)
    assert told(features, looked, "blend.score")[0] == blended[0]
    # By what was had, with weights, 0 counts 4, 2 counts 2 and 3 counts 1; equal ones by number.
    assert told(features, looked, "again.place") == {0: 0, 2: 1, 3: 2, 4: 3}
    assert told(features, looked, "popular.place") == {2: 0, 0: 1, 3: 2, 4: 3}
    spec = FeatureSpec(["popular", "again", "none"], [1.0, 2.0, 0.0], True)
    nothing = PopularityGenerator(ItemScores(POPULAR * 0))
    alone = FeatureExtractor(spec, [*GENERATORS, nothing], STATISTICS)
    assert set(told(alone, alone.extract(HISTORY, EVERYTHING), "none.place").values()) == {500}


def test_item_features() -> None:
    features = made()
    looked = features.extract(HISTORY, EVERYTHING)
    # The mean of those that anybody had is 4.
    assert told(features, looked, "popularity") == pytest.approx(
        {0: np.log(2), 2: np.log(3), 3: np.log(1.5), 4: np.log(1.5)}
    )
    trend = told(features, looked, "trending.trend")
    # Half of what is recent, a quarter of all; a quarter and a half; a quarter and an eighth.
    assert trend.pop(4) < -5
    assert trend == pytest.approx({0: np.log(2), 2: np.log(0.5), 3: np.log(2)}, abs=0.01)
    assert set(told(features, looked, "popularity_15d.trend").values()) == {0.0}
    assert told(features, looked, "repeat_rate") == {0: 0.5, 2: 0.25, 3: 0, 4: 0}
    # From the user's newest interaction on; that others had it first later is no reason to hide it.
    assert told(features, looked, "item_age") == {0: 20, 2: 10, 3: -1, 4: 60}


def test_user_features() -> None:
    features = made(newest_day=112.5)
    looked = features.extract(HISTORY, EVERYTHING)
    expected = {"events": 6, "items": 3, "visits": 3, "newest_visit": 2, "visit_events": 2}
    for name, value in {**expected, "visit_days": 5, "idle_days": 2.5}.items():
        assert set(told(features, looked, name).values()) == {value}


def test_repeat_features() -> None:
    features = made(newest_day=112.0)
    looked = features.extract(HISTORY, EVERYTHING)
    # Of item 4 nothing.
    assert told(features, looked, "had") == {0: 4, 2: 2, 3: 1, 4: 0}
    assert told(features, looked, "had_visits") == {0: 3, 2: 1, 3: 1, 4: 0}
    assert told(features, looked, "had_ago") == {0: 1, 2: 3, 3: 1, 4: 0}
    assert told(features, looked, "had_days") == {0: 2, 2: 12, 3: 2, 4: 0}
    # Three visits in ten days; the others are one each.
    assert told(features, looked, "had_every") == {0: 5, 2: 0, 3: 0, 4: 0}
    assert told(features, looked, "due") == pytest.approx({0: 0.4, 2: 0, 3: 0, 4: 0})
    assert told(features, looked, "due_as_others") == pytest.approx({0: 0.4, 2: 0.6, 3: 0, 4: 0})


def test_ages_count_from_a_later_interaction_of_the_user() -> None:
    late, never = made(newest_day=100.0), made()
    for name in ("idle_days", "had_days", "item_age"):
        assert told(late, late.extract(HISTORY, EVERYTHING), name) == told(
            never, never.extract(HISTORY, EVERYTHING), name
        )


def test_one_interaction_gives_finite_features() -> None:
    one = History(HISTORY.items[:1], HISTORY.time_us[:1], HISTORY.weight[:1])
    for repeats in (False, True):
        looked = made(repeats).extract(one, EVERYTHING)
        assert np.isfinite(looked.values).all()
        assert looked.values.dtype == np.float32
        assert looked.values.shape[0] == len(made(repeats).spec.names)
