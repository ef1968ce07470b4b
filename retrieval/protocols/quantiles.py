"""Quantiles by nearest rank, of a sample or of the latest values of a stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence


class RecentQuantiles:
    """Quantiles of the latest values of a stream, recomputed every so many values.

    The quantiles depend only on values that were observed before they were computed.

    Args:
        ratios: Quantiles to compute, 0..1 each, smallest first.
        window: Number of latest values considered.
        every: Values between computations; before the first there are no quantiles.

    values: The quantiles, smallest first; empty before the first computation.
    """

    def __init__(self, ratios: Sequence[float], *, window: int = 512, every: int = 64) -> None:
        self.values: tuple[float, ...] = ()
        self._ratios = tuple(ratios)
        self._every = every
        self._until_next = every
        self._latest: deque[float] = deque(maxlen=window)

    def observe(self, value: float) -> None:
        """Adds a value."""
        self._latest.append(value)
        self._until_next -= 1
        if self._until_next == 0:
            self._until_next = self._every
            self.values = quantiles(self._latest, self._ratios)


def quantiles(values: Iterable[float], ratios: Iterable[float]) -> tuple[float, ...]:
    """Returns quantiles by nearest rank: the smallest value not exceeded by that share of values.

    Args:
        values: At least one.
        ratios: Quantiles to compute, 0..1.
    """
    ordered = sorted(values)
    return tuple(ordered[max(0, math.ceil(ratio * len(ordered)) - 1)] for ratio in ratios)
