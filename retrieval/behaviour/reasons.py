"""Reasons for the items of a list, as Recommendation in retrieval.proto defines them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.sequences import SequenceGenerator

MAX_REASONS = 3


class HistoryReasons(NamedTuple):
    """Why an item suits a history.

    again: Whether the history has it. because: Numbers of the items that speak for it, strongest
    first. otherwise: "new", "taste" or "popular", if they apply.
    """

    again: bool
    because: Sequence[int]
    otherwise: Sequence[str]


def history_reasons(
    number: int, row: int, history: History, generators: Sequence[Generator], *, trained: bool
) -> HistoryReasons:
    """Returns why generators scored an item.

    An item of the history counts by its share of the score that each list generator computes.

    Args:
        number, row: Of the recommended item.
        history: The history that it was scored with.
        generators: The generators that scored it.
        trained: Whether the item has interactions.
    """
    shares: dict[int, float] = {}
    for generator in generators:
        if isinstance(generator, ListGenerator):
            for other, share in _shares(generator, number, row, history):
                shares[other] = shares.get(other, 0.0) + share
    because = sorted(shares, key=lambda other: (-shares[other], other))[:MAX_REASONS]
    again, otherwise = number in history.items, ""
    if not trained:
        otherwise = "new"
    elif not (because or again):
        by_vector = any(isinstance(g, FactorGenerator | SequenceGenerator) for g in generators)
        otherwise = "taste" if len(history.items) and by_vector else "popular"
    return HistoryReasons(again, because, (otherwise,) if otherwise else ())


def _shares(
    generator: ListGenerator, number: int, row: int, history: History
) -> Iterator[tuple[int, float]]:
    entries = generator.lists.entries(history.items[: generator.newest])
    found = np.flatnonzero(entries.others == row)
    items = history.items[entries.events[found]]
    shares = entries.scores[found] * generator.event_weights(history)[entries.events[found]]
    items, shares = items[items != number], shares[items != number]
    # Interactions that are so old that they count nothing give no reason.
    items, shares = items[shares > 0], shares[shares > 0]
    total = float(shares.sum())
    # Generators score in different units, so each has one vote to distribute.
    return ((int(one), float(share) / total) for one, share in zip(items, shares, strict=True))
