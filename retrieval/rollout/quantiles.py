"""Quantiles of what was seen lately, computed again every so often."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence


class RecentQuantiles:
    """Quantiles of the latest values; they follow from what went before, never from what is next.

    Args:
        ratios: Which ones, 0..1 each, smallest first.
        window: Values looked at.
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
        """Takes a value in."""
        self._latest.append(value)
        self._until_next -= 1
        if self._until_next == 0:
            self._until_next = self._every
            self.values = quantiles(self._latest, self._ratios)


def quantiles(values: Iterable[float], ratios: Iterable[float]) -> tuple[float, ...]:
    """Returns quantiles by nearest rank: the least value that so many are not greater than.

    Args:
        values: At least one.
        ratios: Which ones, 0..1.
    """
    ordered = sorted(values)
    return tuple(ordered[max(0, math.ceil(ratio * len(ordered)) - 1)] for ratio in ratios)
