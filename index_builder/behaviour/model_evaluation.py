"""Evaluates the models of a data set on a split of it; each model ranks every item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.evaluation_task import (
    EvaluationTask,
    make_task,
    only_known_items,
    top_lists,
)
from index_builder.behaviour.lambdamart import unavailable_reason
from index_builder.behaviour.manifest_entries import describe_ranker
from index_builder.behaviour.model_selection import BlendChoice, choose_blend
from index_builder.behaviour.ranker_selection import (
    MIN_LISTS,
    WINDOWS,
    TrainedRanker,
    fit_rankers,
)
from index_builder.behaviour.sequence_trainer import train_sequences
from index_builder.behaviour.user_item_matrix import users_by_items
from index_builder.evaluation.bootstrap import interval, paired_interval
from index_builder.evaluation.recommendation_metrics import UserMetrics, coverage, measure, novelty
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split, validation_windows
from nearline.errors import InvalidRequest
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.sequences import SEQUENCE

# Models with their published settings, and models whose settings validation chooses.
_PLAIN = ("popular", "item_to_item", "als", "ease")
_TUNED = ("session", SEQUENCE, "buy_again")
BLENDED = "blended"
RANKED = "ranked"


class ModelResult(NamedTuple):
    """The result of one model.

    model, settings: Identify the model.
    per_user: Metrics of each tested user.
    lists: (u, k) item numbers.
    """

    model: str
    settings: str
    per_user: UserMetrics
    lists: NDArray[np.int32]


class Evaluation(NamedTuple):
    """The results of all models on one split.

    task: The task that the models solved.
    choice: The blend that validation chose; None if there was nothing to blend.
    results: One per model; the model that would serve is last.
    content_fit: Share that content explains, by regularisation (see
        `content_factors.explained_shares`); empty unless items were scored by content.
    ranker: Result of the ranker, as text; empty if there was none to train.
    """

    train: Interactions
    task: EvaluationTask
    choice: BlendChoice | None
    results: list[ModelResult]
    content_fit: Mapping[float, float]
    ranker: str = ""


def evaluate(
    interactions: Interactions, split_name: str, k: int, *, repeats: bool = False, seed: int = 0
) -> Evaluation:
    """Trains models on one part of the interactions and measures them on the other.

    Settings are chosen on a validation split of the same kind within the training part; then all
    models are trained on the whole training part. The test part is not used before that.

    Args:
        split_name: See `splits.split`. Splits that hold out items are for `cold_item_evaluation`.
        k: Length of each list.
        repeats: Whether items of a user's history may be recommended again.
    Raises: InvalidRequest: there is no such split, or nothing is left to test on.
    """
    only_known = only_known_items(split_name)
    parts = split(interactions, split_name, seed)
    inner = validation_windows(parts.train, split_name, WINDOWS, seed)
    *earlier, newest = train_sequences([*(one.train for one in reversed(inner)), parts.train], seed)
    trial = train_candidates(inner[0].train, repeats=repeats, seed=seed, sequences=earlier[-1])
    validation_task = make_task(inner[0], repeats=repeats, only_known=only_known)
    if not len(validation_task.users):
        raise InvalidRequest(
            f"split {split_name} of the training part leaves no user to choose a blend on: it has "
            f"{len(parts.train.user)} interactions of {len(np.unique(parts.train.user))} users; "
            "pass more interactions, or choose another split",
            field="split",
        )
    choice = choose_blend(trial, validation_task, k, seed)
    ranker_text = unavailable_reason()
    trained: TrainedRanker | None = None
    if not ranker_text:
        rankers = fit_rankers(
            inner,
            trial,
            {repeats: choice.weights},
            split_name,
            k,
            seed,
            sequences=earlier[::-1],
        )
        trained = rankers.get(repeats)
        ranker_text = (
            describe_ranker(trained.card) if trained else f"under {MIN_LISTS} users to learn from"
        )
    task = make_task(parts, repeats=repeats, only_known=only_known)
    candidates = train_candidates(parts.train, repeats=repeats, seed=seed, sequences=newest)
    generators: list[tuple[str, str, Generator]] = []
    by_name = {one.name: one for one in candidates}
    models = {one.model for one in candidates}
    chosen = [f"{model} plain" for model in _PLAIN if model in models]
    chosen += [choice.best(model) for model in _TUNED if model in models]
    for name in chosen:
        one = by_name[name]
        generators.append((one.model, one.settings, one.generator))
    weights = ", ".join(f"{weight:g} x {name}" for name, weight in choice.weights.items())
    generators.append((BLENDED, weights, choice.blend(candidates, repeats=repeats)))
    if trained is not None and trained.card.kept:
        ranker = trained.ranker(parts.train, candidates, choice.weights, repeats=repeats)
        generators.append((RANKED, ranker_text, ranker))
    return Evaluation(
        parts.train, task, choice, measure_generators(task, generators, k), {}, ranker_text
    )


def measure_generators(
    task: EvaluationTask, generators: Iterable[tuple[str, str, Generator]], k: int
) -> list[ModelResult]:
    """Measures generators, each passed with the name and settings of its model."""
    results = []
    for model, settings, generator in generators:
        lists = top_lists(generator, task, k)
        results.append(ModelResult(model, settings, measure(lists, task.relevant, k), lists))
    return results


def result_rows(evaluation: Evaluation, k: int) -> list[Mapping[str, object]]:
    """Returns a row per model to print, with 95% confidence intervals over users.

    NAME_ahead is the gain of the last model, called NAME, over the model of the row.
    """
    train, task = evaluation.train, evaluation.task
    matrix = users_by_items(train)
    counts, users = matrix.getnnz(axis=0), int(np.count_nonzero(matrix.getnnz(axis=1)))
    *_, ours = evaluation.results
    rows: list[Mapping[str, object]] = []
    for one in evaluation.results:
        ndcg = interval(one.per_user.ndcg)
        recall = interval(one.per_user.recall)
        # Items held out from training have no interactions, so their novelty would be the same in
        # all lists.
        new = novelty(one.lists, counts, users, k)
        ahead = paired_interval(ours.per_user.ndcg, one.per_user.ndcg)
        rows.append(
            {
                "model": one.model,
                f"ndcg@{k}": round(ndcg.mean, 4),
                f"ndcg@{k}_low": round(ndcg.low, 4),
                f"ndcg@{k}_high": round(ndcg.high, 4),
                f"recall@{k}": round(recall.mean, 4),
                f"recall@{k}_low": round(recall.low, 4),
                f"recall@{k}_high": round(recall.high, 4),
                f"hit_rate@{k}": round(float(one.per_user.hit_rate.mean()), 4),
                f"mrr@{k}": round(float(one.per_user.mrr.mean()), 4),
                f"coverage@{k}": round(coverage(one.lists, int(task.candidates.sum()), k), 4),
                **({} if evaluation.content_fit else {f"novelty@{k}": round(new, 3)}),
                f"{ours.model}_ahead_low": round(ahead.low, 4),
                f"{ours.model}_ahead_high": round(ahead.high, 4),
                "users": len(task.users),
                "settings": one.settings,
            }
        )
    return rows
