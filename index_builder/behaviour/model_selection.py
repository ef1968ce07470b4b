"""Chooses the blend of generators, and the popularity table, on validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.evaluation.recommendation_metrics import measure
from retrieval.behaviour.blend import Blend, Generator, WeightedGenerator, blend_contribution
from retrieval.behaviour.tables import POPULARITY

_WEIGHTS = (0.5, 1.0, 2.0)
_MAX_PARTS = 4
# Smaller gains are noise, and every part adds latency to every request.
_MIN_GAIN = 0.001
# The scores of all candidates are in memory at once: this many numbers per candidate.
_MAX_SCORES = 20_000_000
_MAX_USERS = 1_000
_POPULAR = "popular"


class BlendChoice(NamedTuple):
    """A chosen blend.

    weights: By name of a candidate.
    validation: NDCG of the blend on validation.
    alone: NDCG of each candidate alone.
    """

    weights: Mapping[str, float]
    validation: float
    alone: Mapping[str, float]

    def blend(self, candidates: Sequence[CandidateGenerator], *, repeats: bool) -> Blend:
        """Returns the blend with retrained candidates."""
        by_name = {one.name: one.generator for one in candidates}
        parts = [WeightedGenerator(by_name[name], weight) for name, weight in self.weights.items()]
        return Blend(parts, repeats)

    def best(self, model: str) -> str:
        """Returns the name of the model's candidate that was best alone."""
        of_model = {name: ndcg for name, ndcg in self.alone.items() if name.split()[0] == model}
        return max(of_model, key=of_model.__getitem__)


def choose_blend(
    candidates: Sequence[CandidateGenerator], task: EvaluationTask, k: int, seed: int = 0
) -> BlendChoice:
    """Adds the candidate with the largest gain until none gains enough.

    Args:
        candidates: Trained without the task's relevant items.
        task: Task of the validation split; users are sampled if there are many.
        k: Length of each list.
    """
    task = sample_users(task, seed)
    contributions = {one.name: _contributions(one.generator, task) for one in candidates}
    alone = {name: _ndcg(scores, task, k) for name, scores in contributions.items()}
    first = max(alone, key=alone.__getitem__)
    weights, best, total = {first: 1.0}, alone[first], contributions[first]
    while len(weights) < _MAX_PARTS:
        trials = {
            (name, weight): _ndcg(total + np.float32(weight) * scores, task, k)
            for name, scores in contributions.items()
            if name not in weights
            for weight in _WEIGHTS
        }
        name, weight = max(trials, key=trials.__getitem__)
        if trials[name, weight] < best + _MIN_GAIN:
            break
        best = trials[name, weight]
        weights[name] = weight
        total = total + np.float32(weight) * contributions[name]
    return BlendChoice(weights, best, alone)


def choose_popularity_table(
    choices: Iterable[BlendChoice | None], candidates: Sequence[CandidateGenerator]
) -> str:
    """Returns the name of the popularity table that was best as one list for all users.

    Args:
        choices: The first that is not None decides: the choice without repeats is closer to users
            without a history.
        candidates: The candidates that were chosen from, or the same ones retrained.
    Returns: The table of plain counts if nothing was chosen, or if no other table is better.
    """
    tables = {one.name: one.table for one in candidates if one.model == _POPULAR}
    plain = next(name for name, table in tables.items() if table == POPULARITY)
    choice = next((one for one in choices if one is not None), None)
    if choice is None:
        return POPULARITY
    best = choice.best(_POPULAR)
    gain = choice.alone[best] - choice.alone[plain]
    return tables[best] if gain >= _MIN_GAIN else POPULARITY


def sample_users(task: EvaluationTask, seed: int) -> EvaluationTask:
    """Returns the task with as many of its users as validation measures."""
    limit = min(_MAX_USERS, max(_MAX_SCORES // len(task.candidates), 1))
    if len(task.users) <= limit:
        return task
    kept = np.sort(np.random.default_rng(seed).choice(len(task.users), limit, replace=False))
    return task._replace(
        users=task.users[kept],
        histories=[task.histories[at] for at in kept.tolist()],
        relevant=[task.relevant[at] for at in kept.tolist()],
    )


def _contributions(generator: Generator, task: EvaluationTask) -> NDArray[np.float32]:
    """Returns a generator's contribution to the blend of each user: (u, items) float32."""
    return np.array(
        [blend_contribution(generator, one, repeats=task.repeats) for one in task.histories]
    )


def _ndcg(scores: NDArray[np.float32], task: EvaluationTask, k: int) -> float:
    allowed = np.where(task.candidates, scores, -np.inf)
    k = min(k, scores.shape[1])
    best = np.argpartition(-allowed, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(allowed, best, axis=1), axis=1, kind="stable")
    lists = np.take_along_axis(best, order, axis=1).astype(np.int32)
    return float(measure(lists, task.relevant, k).ndcg.mean())
