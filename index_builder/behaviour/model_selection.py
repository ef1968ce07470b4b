"""Chooses the blend of generators, and the popularity table, on validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.evaluation.recommendation_metrics import measure
from retrieval.behaviour.blend import (
    DEPTH,
    Blend,
    Generator,
    WeightedGenerator,
    on_common_scale,
    without_history,
)
from retrieval.behaviour.history import History
from retrieval.behaviour.tables import POPULARITY
from retrieval.protocols.scored_rows import ScoredRows, union

_WEIGHTS = (0.5, 1.0, 2.0)
_MAX_PARTS = 4
# Smaller gains are noise, and every part adds latency to every request.
_MIN_GAIN = 0.001
# The scores of all generators are in memory at once: some thousand items for each user. Others are
# looked at, but not kept, if no generator found an item that they had later.
_MAX_USERS, _MAX_LOOKED = 1_000, 4_000
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
    trial = _Trial([one.generator for one in candidates], task, seed)
    contributions = dict(zip((one.name for one in candidates), trial.contributions, strict=True))
    alone = {name: trial.ndcg(scores, k) for name, scores in contributions.items()}
    first = max(alone, key=alone.__getitem__)
    weights, best, total = {first: 1.0}, alone[first], contributions[first]
    while len(weights) < _MAX_PARTS:
        trials = {
            (name, weight): trial.ndcg(total + np.float32(weight) * scores, k)
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


class _Trial:
    """The contributions of generators to blends, for the items that any of them finds.

    contributions: For each generator, (n,) float32, the part in a blend of each item of each user.
    """

    def __init__(self, generators: Sequence[Generator], task: EvaluationTask, seed: int) -> None:
        self._relevant: list[NDArray[np.int32]] = []
        self._looked = 0
        parts: list[list[ScoredRows]] = []
        rows: list[NDArray[np.int64]] = []
        users = np.random.default_rng(seed).permutation(len(task.users))[:_MAX_LOOKED]
        for user in users.tolist():
            if len(rows) == _MAX_USERS:
                break
            self._looked += 1
            of_user = _contributions(generators, task.histories[user], task)
            found, relevant = union(of_user), task.relevant[user]
            if np.isin(relevant, found).any():
                parts.append(of_user)
                rows.append(found)
                self._relevant.append(relevant)
        self._rows = np.concatenate([np.empty(0, np.int64), *rows])
        self._stops = np.cumsum([len(one) for one in rows]).tolist()
        self.contributions = np.zeros((len(generators), len(self._rows)), np.float32)
        start = 0
        for of_user, of_rows, stop in zip(parts, rows, self._stops, strict=True):
            for at, one in enumerate(of_user):
                self.contributions[at, start:stop] = one.of(of_rows)
            start = stop

    def ndcg(self, scores: NDArray[np.float32], k: int) -> float:
        """Returns the mean NDCG@k of the lists that some scores order. scores: (n,)."""
        lists = np.full((len(self._stops), k), -1, np.int32)
        start = 0
        for number, stop in enumerate(self._stops):
            of_user = ScoredRows(self._rows[start:stop], scores[start:stop])
            best, _ = of_user.positive().best(k).ranked()
            lists[number, : len(best)] = best
            start = stop
        return float(measure(lists, self._relevant, k).ndcg.sum()) / max(self._looked, 1)


def _contributions(
    generators: Sequence[Generator], history: History, task: EvaluationTask
) -> list[ScoredRows]:
    """Returns the contribution of each generator to the blend of a user."""
    allowed = task.candidates if task.repeats else without_history(task.candidates, history)
    return on_common_scale([one.best(history, allowed, DEPTH) for one in generators])


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
    if len(task.users) <= _MAX_USERS:
        return task
    kept = np.sort(np.random.default_rng(seed).choice(len(task.users), _MAX_USERS, replace=False))
    return task._replace(
        users=task.users[kept],
        histories=[task.histories[at] for at in kept.tolist()],
        relevant=[task.relevant[at] for at in kept.tolist()],
    )
