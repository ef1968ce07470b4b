"""Where the country decides what comes next, a ranker that knows it is better, and serves."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.evaluation_task import make_task
from index_builder.behaviour.model_selection import choose_blend
from index_builder.behaviour.ranker_dataset import build_features
from index_builder.behaviour.ranker_selection import TrainedRanker, fit_rankers
from index_builder.interactions.records import Interactions
from index_builder.interactions.segments import segment_lifts, with_segments
from index_builder.interactions.splits import validation_windows
from nearline.contract import Attributes
from nearline.times import DAY_US

HOW, K = "time:0.9", 10
COUNTRIES, EACH, COMMON, USERS = 6, 20, 20, 2_400
_FEW = {"als plain", "popular plain", "popular days=15", "item_to_item tau=8"}


def shopping() -> tuple[Interactions, dict[str, Attributes]]:
    """Returns what users had, and where they live.

    Twenty users come a day. Each has an item that is common everywhere, and fifteen days later one
    of the country, so that no history tells which.
    """
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(USERS), 2)
    own = user % COUNTRIES * EACH + rng.integers(0, EACH, len(user))
    common = COUNTRIES * EACH + rng.integers(0, COMMON, len(user))
    is_own = np.arange(len(user)) % 2 == 1
    rows = Interactions(
        [f"u{one:04}" for one in range(USERS)],
        [f"i{one:03}" for one in range(COUNTRIES * EACH + COMMON)],
        user.astype(np.int32),
        np.where(is_own, own, common).astype(np.int32),
        (user // 20 + 15 * is_own) * DAY_US,
        np.ones(len(user), np.float32),
    )
    return rows, {one: {"country": at % COUNTRIES} for at, one in enumerate(rows.users)}


def fitted(rows: Interactions, monkeypatch: pytest.MonkeyPatch) -> TrainedRanker:
    def some(rows: Interactions, **options: object) -> object:
        return [one for one in train_candidates(rows, repeats=False) if one.name in _FEW]

    monkeypatch.setattr("index_builder.behaviour.ranker_selection.train_candidates", some)
    parts = validation_windows(rows, HOW, 3)
    trial = [one for one in train_candidates(parts[0].train, repeats=False) if one.name in _FEW]
    weights = dict(choose_blend(trial, make_task(parts[0], only_known=True), K).weights)
    return fit_rankers(parts, trial, {False: weights}, HOW, K, 0)[False]


def test_validation_keeps_a_ranker_that_knows_the_country(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, attributes = shopping()
    without = fitted(with_segments(rows, {}), monkeypatch).card
    found = fitted(with_segments(rows, attributes), monkeypatch).card
    assert found.kept and found.gain_low > 0
    assert found.features[-1] == "segment_lifts"
    assert found.blend_ndcg == without.blend_ndcg
    assert found.validation_ndcg > without.validation_ndcg + 0.02
    # Attributes that say nothing are no gain.
    noise = {one: {"coin": at // COUNTRIES % 2} for at, one in enumerate(rows.users)}
    assert not fitted(with_segments(rows, noise), monkeypatch).card.kept


def test_the_feature_is_the_sum_of_the_lifts_and_0_without_segments() -> None:
    rows, attributes = shopping()
    both = {one: {**own, "old": at < 1_200} for at, (one, own) in enumerate(attributes.items())}
    parts = validation_windows(rows, HOW, 1)[0]
    parts = parts._replace(train=with_segments(parts.train, both))
    candidates = [one for one in train_candidates(parts.train, repeats=False) if one.name in _FEW]
    features = build_features(
        parts.train, candidates, {"popular plain": 1.0}, repeats=False, since_newest=False
    )
    assert features.spec.names[-1] == "segment_lifts"
    task = make_task(parts)
    lifts, segments = segment_lifts(parts.train), list(parts.train.segments)
    for at in (0, 7, 123):
        name = rows.users[task.users[at]]
        own = [segments.index(f"{of}={str(one).lower()}") for of, one in both[name].items()]
        found = features.extract(task.histories[at], task.candidates)
        assert found.values[-1] == pytest.approx(lifts[found.rows][:, own].sum(axis=1), abs=1e-6)
        assert found.values[-1].std() > 0.1
        unknown = features.extract(task.histories[at]._replace(segments=()), task.candidates)
        assert np.array_equal(unknown.rows, found.rows) and not unknown.values[-1].any()
        assert np.array_equal(unknown.values[:-1], found.values[:-1])
