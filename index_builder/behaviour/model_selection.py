"""Which generators serve a data set, and how much each counts: chosen on validation."""

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
_MOST_PARTS = 4
# Less than this is noise, and every part costs time in every request.
_LEAST_GAIN = 0.001
# Scores of all candidates are held at once: so many numbers each.
_MOST_SCORES = 20_000_000
_MOST_USERS = 1_000
_POPULAR = "popular"


class BlendChoice(NamedTuple):
    """What was chosen.

    weights: By name of a candidate. validation: NDCG of the blend there. alone: Of each candidate.
    """

    weights: Mapping[str, float]
    validation: float
    alone: Mapping[str, float]

    def blend(self, candidates: Sequence[CandidateGenerator], *, repeats: bool) -> Blend:
        """Makes the blend of candidates that were trained again."""
        by_name = {one.name: one.generator for one in candidates}
        parts = [WeightedGenerator(by_name[name], weight) for name, weight in self.weights.items()]
        return Blend(parts, repeats)

    def best(self, model: str) -> str:
        """Returns the name of the candidate of a model that was best alone."""
        of_model = {name: ndcg for name, ndcg in self.alone.items() if name.split()[0] == model}
        return max(of_model, key=of_model.__getitem__)


def choose_blend(
    candidates: Sequence[CandidateGenerator], task: EvaluationTask, k: int, seed: int = 0
) -> BlendChoice:
    """Adds the candidate that helps most, until none helps.

    Args:
        candidates: Trained without what the task asks for.
        task: Of the validation split; of many users some are drawn.
        k: Places of a list.
    """
    task = _drawn(task, seed)
    scaled = {one.name: _shares(one.generator, task) for one in candidates}
    alone = {name: _ndcg(scores, task, k) for name, scores in scaled.items()}
    first = max(alone, key=alone.__getitem__)
    weights, best, total = {first: 1.0}, alone[first], scaled[first]
    while len(weights) < _MOST_PARTS:
        trials = {
            (name, weight): _ndcg(total + np.float32(weight) * scores, task, k)
            for name, scores in scaled.items()
            if name not in weights
            for weight in _WEIGHTS
        }
        name, weight = max(trials, key=trials.__getitem__)
        if trials[name, weight] < best + _LEAST_GAIN:
            break
        best = trials[name, weight]
        weights[name] = weight
        total = total + np.float32(weight) * scaled[name]
    return BlendChoice(weights, best, alone)


def choose_popularity_table(
    choices: Iterable[BlendChoice | None], candidates: Sequence[CandidateGenerator]
) -> str:
    """Returns the name of the popularity table whose items were the best lists for all users.

    Args:
        choices: The first that is not None decides: the choice without repeats is closer to users
            without a history.
        candidates: Those chosen from, or the same ones retrained.
    Returns: The table of plain counts if nothing was chosen, or if no other table is better.
    """
    tables = {one.name: one.table for one in candidates if one.model == _POPULAR}
    plain = next(name for name, table in tables.items() if table == POPULARITY)
    choice = next((one for one in choices if one is not None), None)
    if choice is None:
        return POPULARITY
    best = choice.best(_POPULAR)
    gain = choice.alone[best] - choice.alone[plain]
    return tables[best] if gain >= _LEAST_GAIN else POPULARITY


def _drawn(task: EvaluationTask, seed: int) -> EvaluationTask:
    most = min(_MOST_USERS, max(_MOST_SCORES // len(task.candidates), 1))
    if len(task.users) <= most:
        return task
    kept = np.sort(np.random.default_rng(seed).choice(len(task.users), most, replace=False))
    return task._replace(
        users=task.users[kept],
        histories=[task.histories[at] for at in kept.tolist()],
        relevant=[task.relevant[at] for at in kept.tolist()],
    )


def _shares(generator: Generator, task: EvaluationTask) -> NDArray[np.float32]:
    """Returns what a generator adds to the blend of each user: (u, items) float32."""
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
