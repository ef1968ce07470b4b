"""A ranker serves only if it was better on validation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.evaluation_task import EvaluationTask, make_task, top_lists
from index_builder.behaviour.manifest_entries import describe_ranker
from index_builder.behaviour.model_selection import choose_blend
from index_builder.behaviour.ranker_dataset import RankerDataset, build_dataset, first_days
from index_builder.behaviour.ranker_selection import (
    TrainedRanker,
    fit_rankers,
    mean_of_users,
    ndcg_of,
)
from index_builder.evaluation.recommendation_metrics import measure
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split, validation_windows
from nearline.times import DAY_US
from retrieval.behaviour.features import FeatureExtractor
from tests.index_builder.behaviour.repeat_buyers import ITEMS, rounds

HOW, K = "last-n:1", 3
# Only these few candidates are trained, to save time.
_FEW = {"als plain", "popular plain", "popular days=15", "buy_again plain", "item_to_item tau=8"}
_FEW |= {"buy_again tau=5 popularity=0.6"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(rows: Interactions, **options: object) -> object:
        return [one for one in train_candidates(rows, repeats=True) if one.name in _FEW]

    monkeypatch.setattr("index_builder.behaviour.ranker_selection.train_candidates", some)


@cache
def fitted(*, at_random: bool) -> tuple[TrainedRanker, dict[str, float]]:
    rows = rounds(at_random=at_random)
    parts = validation_windows(rows, HOW, 3)
    trial = [one for one in train_candidates(parts[0].train, repeats=True) if one.name in _FEW]
    choice = choose_blend(trial, make_task(parts[0], repeats=True), K)
    weights = dict(choice.weights)
    return fit_rankers(parts, trial, {True: weights}, HOW, K, 0)[True], weights


def test_a_ranker_learns_what_no_blend_can() -> None:
    found, _ = fitted(at_random=False)
    card = found.card
    assert card.kept and card.gain_low > 0.1
    assert card.validation_ndcg > 0.95 > card.blend_ndcg
    assert card.validation_users == 130 and card.lists == 390 and card.positives == 390
    assert not card.since_newest and "trees=" in card.settings
    assert f"{card.trees} trees: NDCG {card.blend_ndcg:.4f}" in describe_ranker(card)
    for line in card.features:
        assert f"{line}" in found.text


def test_the_ranker_is_better_on_later_interactions() -> None:
    found, weights = fitted(at_random=False)
    # One more round: the ranker was trained on the earlier ones.
    parts = split(rounds(steps=15), HOW)
    candidates = [one for one in train_candidates(parts.train, repeats=True) if one.name in _FEW]
    task = make_task(parts, repeats=True)
    ranker = found.ranker(parts.train, candidates, weights, repeats=True)
    lists = top_lists(ranker, task, K)
    assert measure(lists, task.relevant, K).ndcg.mean() > 0.95
    again = found.ranker(parts.train, candidates, weights, repeats=True)
    first, second = (one.best(task.histories[0], task.candidates, ITEMS) for one in (ranker, again))
    assert len(first.rows)
    assert np.array_equal(first.rows, second.rows) and np.array_equal(first.scores, second.scores)


def test_a_ranker_without_a_gain_does_not_serve() -> None:
    found, _ = fitted(at_random=True)
    assert not found.card.kept and found.text == ""
    assert found.card.gain_low <= 0 and not found.card.sources
    assert describe_ranker(found.card).startswith("not kept: ")


def test_the_trees_on_trial_have_not_seen_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    found, weights = fitted(at_random=False)
    parts = validation_windows(rounds(at_random=False), HOW, 3)

    def with_others(features: FeatureExtractor, task: EvaluationTask, seed: int) -> RankerDataset:
        lists = build_dataset(features, task, seed)
        if len(task.histories[0].items) < len(newest.histories[0].items):
            return lists
        tenth = len(lists.labels) // 10
        return lists._replace(
            labels=np.append(np.roll(lists.labels[:tenth], 1), lists.labels[tenth:])
        )

    newest = make_task(parts[0], repeats=True)
    monkeypatch.setattr("index_builder.behaviour.ranker_selection.build_dataset", with_others)
    trial = [one for one in train_candidates(parts[0].train, repeats=True) if one.name in _FEW]
    again = fit_rankers(parts, trial, {True: weights}, HOW, K, 0)[True]
    assert again.trial == found.trial != ""
    assert again.text != found.text


def test_a_user_counts_once_however_many_windows_have_lists_of_them() -> None:
    users = np.array([3, 1, 3, 2, 3], np.int32)
    assert mean_of_users(np.array([1.0, 0.5, 0.0, 0.25, 0.5]), users).tolist() == [0.5, 0.25, 0.5]


def test_no_ranker_is_trained_with_few_users() -> None:
    parts = validation_windows(rounds(users=99), HOW, 3)
    assert fit_rankers(parts, [], {True: {}, False: {}}, HOW, K, 0) == {}


def test_ndcg_of_lists_is_that_of_the_metrics() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([5, 1, 30, 8])
    wanted = rng.random(sizes.sum()) < 0.3
    scores = rng.integers(0, 6, sizes.sum()).astype(np.float32)
    ends = np.cumsum(sizes)
    parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    # Two relevant items of each user are no candidates.
    relevant = [np.append(np.flatnonzero(wanted[at]), [90, 91]).astype(np.int32) for at in parts]
    asked = np.array([len(one) for one in relevant])
    lists = np.full((4, 30), -1, np.int32)
    for row, at in enumerate(parts):
        lists[row, : sizes[row]] = np.argsort(-scores[at], kind="stable")
    users, missed = np.arange(4, dtype=np.int32), np.array([7, 8], np.int32)
    made = RankerDataset(("x",), sizes, scores[:, None], wanted, asked, users, missed)
    for k in (1, 4, 30):
        ndcg = measure(lists, relevant, k).ndcg
        assert ndcg_of(made, scores, k) == pytest.approx([*ndcg, 0, 0])


def test_the_first_day_of_an_item_is_that_of_its_first_row() -> None:
    rows = rounds(users=3, steps=4)
    found = first_days(rows._replace(time_us=rows.time_us + 10 * DAY_US))
    for item in range(ITEMS):
        had = np.flatnonzero(rows.item == item)
        assert found[item] == (10 + had[0] // 3 if len(had) else 0)
