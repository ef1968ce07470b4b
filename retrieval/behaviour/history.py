"""The history of one user, as generators read it, and its decay."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US


class History(NamedTuple):
    """The n interactions of one user, newest first.

    items: (n,) int32 item numbers, which may repeat. time_us: (n,) int64, microseconds since 1970.
    weight: (n,) float32 > 0.
    """

    items: NDArray[np.int32]
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]


EMPTY_HISTORY = History(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float32))


class Recency(NamedTuple):
    """The decay of older interactions of a user.

        (floor + (1 - floor) exp(-rank / tau)) exp(-age / days)
    rank: 0 for the newest interaction. age: Days before the newest interaction. If ages were
    counted from a later time, all scores of a user would only be multiplied by the same factor.
    """

    tau: float = np.inf
    floor: float = 0.0
    days: float = np.inf

    def factors(self, time_us: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the factor of each interaction, newest first: (n,) float32.

        Args:
            time_us: (n,) descending.
        """
        decay = np.exp(-np.arange(len(time_us)) / self.tau)
        decay = self.floor + (1 - self.floor) * decay
        if np.isfinite(self.days) and len(time_us):
            decay *= np.exp(-(time_us[0] - time_us) / (self.days * DAY_US))
        return decay.astype(np.float32)
