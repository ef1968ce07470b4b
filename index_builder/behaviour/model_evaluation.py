"""How good the models of a data set are on a split of it, each ranking every item."""

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
from index_builder.behaviour.manifest_entries import describe_ranker
from index_builder.behaviour.model_selection import BlendChoice, choose_blend
from index_builder.behaviour.ranker_selection import (
    LEAST_LISTS,
    WINDOWS,
    TrainedRanker,
    fit_rankers,
    obstacle,
)
from index_builder.behaviour.user_item_matrix import users_by_items
from index_builder.evaluation.bootstrap import interval, paired_interval
from index_builder.evaluation.recommendation_metrics import UserMetrics, coverage, measure, novelty
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split, validation_windows
from nearline.errors import InvalidRequest
from retrieval.behaviour.blend import Generator

# Models as they are published, and those whose settings were chosen on validation.
_PLAIN = ("popular", "item_to_item", "als", "ease")
_CHOSEN = ("session", "buy_again")
BLENDED = "blended"
RANKED = "ranked"


class ModelResult(NamedTuple):
    """What a model reached.

    model, settings: What it is. per_user: Of each user tested. lists: (u, k) item numbers.
    """

    model: str
    settings: str
    per_user: UserMetrics
    lists: NDArray[np.int32]


class Evaluation(NamedTuple):
    """Models on one split.

    task: What was asked. choice: What validation chose; None where there was nothing to blend.
    measured: Of each model; that which is to serve is the last.
    placing: What each regularisation explains (`content_map.explained`); empty where no item was
        placed by what it says.
    ranker: What became of it, in words; empty: none was asked for.
    """

    train: Interactions
    task: EvaluationTask
    choice: BlendChoice | None
    measured: list[ModelResult]
    placing: Mapping[float, float]
    ranker: str = ""


def evaluate(
    interactions: Interactions, how: str, k: int, *, repeats: bool = False, seed: int = 0
) -> Evaluation:
    """Trains on one part and measures on the other.

    Settings are chosen on a validation split of the same kind inside the training part; then all
    is trained on the whole of it. Nothing of the test part is looked at before.

    Args:
        how: See `splits.split`; what holds out items is for `cold_items`. k: Places of a list.
        repeats: What a user had may be recommended again.
    Raises: InvalidRequest: no such split, or nothing is left to test on.
    """
    only_known = only_known_items(how)
    parts = split(interactions, how, seed)
    inner = validation_windows(parts.train, how, WINDOWS, seed)
    trial = train_candidates(inner[0].train, repeats=repeats, seed=seed)
    mirror = make_task(inner[0], repeats=repeats, only_known=only_known)
    if not len(mirror.users):
        raise InvalidRequest(
            f"split {how} of the training part leaves nobody to choose a blend on: it has "
            f"{len(parts.train.user)} interactions of {len(np.unique(parts.train.user))} users; "
            "give more of them, or another split",
            field="split",
        )
    choice = choose_blend(trial, mirror, k, seed)
    told = obstacle(parts.train)
    fitted: TrainedRanker | None = None
    if not told:
        found = fit_rankers(inner, trial, {repeats: choice.weights}, how, k, seed)
        fitted = found.get(repeats)
        told = (
            describe_ranker(fitted.card) if fitted else f"under {LEAST_LISTS} users to learn from"
        )
    task = make_task(parts, repeats=repeats, only_known=only_known)
    candidates = train_candidates(parts.train, repeats=repeats, seed=seed)
    generators: list[tuple[str, str, Generator]] = []
    by_name = {one.name: one for one in candidates}
    models = {one.model for one in candidates}
    chosen = [f"{model} plain" for model in _PLAIN if model in models]
    chosen += [choice.best(model) for model in _CHOSEN if model in models]
    for name in chosen:
        one = by_name[name]
        generators.append((one.model, one.settings, one.generator))
    weights = ", ".join(f"{weight:g} x {name}" for name, weight in choice.weights.items())
    generators.append((BLENDED, weights, choice.blend(candidates, repeats=repeats)))
    if fitted is not None and fitted.card.kept:
        ranker = fitted.ranker(parts.train, candidates, choice.weights, repeats=repeats)
        generators.append((RANKED, told, ranker.within(task.candidates)))
    return Evaluation(parts.train, task, choice, measure_generators(task, generators, k), {}, told)


def measure_generators(
    task: EvaluationTask, generators: Iterable[tuple[str, str, Generator]], k: int
) -> list[ModelResult]:
    """Measures generators, each with the name and the settings of its model."""
    measured = []
    for model, settings, generator in generators:
        lists = top_lists(generator, task, k)
        measured.append(ModelResult(model, settings, measure(lists, task.relevant, k), lists))
    return measured


def result_rows(evaluation: Evaluation, k: int) -> list[Mapping[str, object]]:
    """Returns what to print: a row for each model, with 95% intervals over users.

    NAME_ahead is the gain of the last model, named so, over that of the row.
    """
    train, task = evaluation.train, evaluation.task
    matrix = users_by_items(train)
    counts, users = matrix.getnnz(axis=0), int(np.count_nonzero(matrix.getnnz(axis=1)))
    *_, ours = evaluation.measured
    rows: list[Mapping[str, object]] = []
    for one in evaluation.measured:
        ndcg = interval(one.per_user.ndcg)
        recall = interval(one.per_user.recall)
        # Nobody had what was held out: there it would be one number for all lists.
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
                **({} if evaluation.placing else {f"novelty@{k}": round(new, 3)}),
                f"{ours.model}_ahead_low": round(ahead.low, 4),
                f"{ours.model}_ahead_high": round(ahead.high, 4),
                "users": len(task.users),
                "settings": one.settings,
            }
        )
    return rows
