"""Why an item is recommended: what of a history speaks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.model import BehaviourModel

MAX_REASONS = 3


def history_reasons(
    learned: BehaviourModel, number: int, history: History, generators: Sequence[Generator]
) -> tuple[str, ...]:
    """Returns the reasons for an item, strongest first; see Recommendation in retrieval.proto.

    An item of the history speaks for it by its place in that item's lists, as generators count it.

    Args:
        number: Of the item.
        history: What its score was made from.
        generators: Those that made it.
    """
    found: dict[int, float] = {}
    for generator in generators:
        if isinstance(generator, ListGenerator):
            for other, share in _shares(generator, number, history):
                found[other] = found.get(other, 0.0) + share
    best = sorted(found, key=lambda one: (-found[one], one))[:MAX_REASONS]
    reasons = [f"because:{learned.ids[one]}" for one in best]
    if number in history.items:
        reasons.insert(0, "again")
    if not learned.trained[number]:
        reasons.append("new")
    elif not reasons:
        by_taste = len(history.items) and any(isinstance(g, FactorGenerator) for g in generators)
        reasons.append("taste" if by_taste else "popular")
    return tuple(reasons)


def _shares(generator: ListGenerator, number: int, history: History) -> Iterator[tuple[int, float]]:
    newest = history.items[: generator.newest]
    weights = generator.recency.factors(history.time_us[: generator.newest])
    weights = weights * history.weight[: generator.newest]
    of_lists = 0.0
    shares = []
    for item, weight in zip(newest.tolist(), weights.tolist(), strict=True):
        others, scores = generator.lists.of(item)
        at = np.flatnonzero(others == number)
        if len(at) and item != number:
            share = weight * float(scores[at[0]])
            of_lists += share
            shares.append((item, share))
    # Generators count in different units: each has one vote to give.
    return ((item, share / of_lists) for item, share in shares)
