"""Interactions of users with items, in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interactions(NamedTuple):
    """Interactions in the order of their file; n rows.

    Users and items are numbered in order of their first row. There may be more of them than in the
    rows, because a part of a data set keeps the numbers of the whole.

    users, items: Ids by number.
    user, item: (n,) int32 numbers.
    time_us: (n,) int64, microseconds since 1970 (UTC).
    weight: (n,) float32 > 0, the weight of the kind of interaction times its value, if any.
    segments: Names of segments of users, see `retrieval.behaviour.segments`; only in training.
    belongs: (users, segments) bool, who is in which.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    segments: Sequence[str] = ()
    belongs: NDArray[np.bool_] = np.empty((0, 0), np.bool_)

    def some(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Interactions:
        """Returns some of the rows, with the same numbers."""
        return self._replace(
            user=self.user[rows],
            item=self.item[rows],
            time_us=self.time_us[rows],
            weight=self.weight[rows],
        )

    def pairs(self) -> NDArray[np.int64]:
        """Returns user * items + item of each pair of a user and an item, ascending, each once."""
        return np.unique(self.user.astype(np.int64) * len(self.items) + self.item)

    def by_time(self) -> Interactions:
        """Returns the rows by user, each user's by (time, row in the file)."""
        same = self.user[1:] == self.user[:-1]
        ordered = (self.user[1:] > self.user[:-1]) | (same & (np.diff(self.time_us) >= 0))
        if ordered.all():
            return self
        return self.some(np.lexsort((self.time_us, self.user)))


class InteractionReport(NamedTuple):
    """Counts of rows read or cleaned. left_out: By reason; each row counts once."""

    rows: int
    kept: int
    left_out: Mapping[str, int]
