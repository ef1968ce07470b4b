"""The histories of users: of one, as generators read it, and of all, as a snapshot stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.index.sorted_ids import index_of
from retrieval.protocols.scored_rows import first_of_runs

# Number of interactions that most generators read: a vector folded in from this many equals the
# trained one (ADR 0018), and the lists of older interactions add little.
MAX_HISTORY_EVENTS = 128


# Vectors of a user, by the recency and the number of interactions that they are computed from.
UserVectors: TypeAlias = "dict[tuple[Recency, int], NDArray[np.float32]]"


class History(NamedTuple):
    """The n interactions of one user, newest first.

    items: (n,) int32 item numbers, which may repeat. time_us: (n,) int64, microseconds since 1970.
    weight: (n,) float32 > 0. rows: (n,) int64, the row of each item among the items that may be
    candidates, -1 for items of other shards; None if all items may be, and rows are numbers. memo:
    User vectors, which the shards of one process share. Optional; None keeps none. segments: Those
    of the user, by number.
    """

    items: NDArray[np.int32]
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    rows: NDArray[np.int64] | None = None
    memo: UserVectors | None = None
    segments: tuple[int, ...] = ()

    def own_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the events whose items may be candidates, and the rows of these items."""
        if self.rows is None:
            return np.arange(len(self.items)), self.items.astype(np.int64)
        events = np.flatnonzero(self.rows >= 0)
        return events, self.rows[events]

    def visits(self) -> NDArray[np.int64]:
        """Returns the visit of each interaction, from 0 for the newest; one moment is one visit."""
        return np.cumsum(first_of_runs(self.time_us)) - 1


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


class UserHistories(NamedTuple):
    """The n interactions of u users.

    users: Ids, ascending. starts: (u + 1,) int64; the interactions of user i are
    starts[i]:starts[i + 1]. items: (n,) int32 item numbers, newest first. time_us: (n,) int64,
    microseconds since 1970. weight: (n,) float32 > 0.
    """

    users: Sequence[str]
    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]

    def of(self, user_id: str) -> History | None:
        """Returns the history of a user, or None if the user has none."""
        at = index_of(self.users, user_id)
        if at is None:
            return None
        part = slice(self.starts[at], self.starts[at + 1])
        # Copies: a cached history would keep the files of its snapshot open.
        items, time_us, weight = self.items[part], self.time_us[part], self.weight[part]
        return History(items.copy(), time_us.copy(), weight.copy())

    def filtered(self, kept: NDArray[np.bool_]) -> UserHistories:
        """Returns some of the interactions, and only the users who have any of them.

        Args:
            kept: (n,) bool, which interactions to keep.
        """
        user_of = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        counts = np.bincount(user_of[kept], minlength=len(self.users))
        return UserHistories(
            [self.users[at] for at in np.flatnonzero(counts).tolist()],
            np.concatenate(([0], np.cumsum(counts[counts > 0]))).astype(np.int64),
            self.items[kept],
            self.time_us[kept],
            self.weight[kept],
        )
