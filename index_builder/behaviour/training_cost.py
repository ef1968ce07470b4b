"""Estimates the memory and the time of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from index_builder.behaviour.ease import MOST_ITEMS
from index_builder.behaviour.sequence_trainer import sequence_seconds
from index_builder.interactions.records import Interactions
from nearline.errors import InvalidRequest
from retrieval.snapshots.memory import free_bytes

# Measured (docs/performance.md): rows and their copies, matrices and windows.
_ROW_BYTES = 250
# Of each item and user: 64 factors, their copies in order, and ids.
_NUMBERED_BYTES = 1_500
# Of each cell of the matrix that EASE inverts: two float64 and one float32.
_INVERTED_BYTES = 20
# Blocks and lists that are not mapped from files: they grow with the rows up to a limit.
_MAX_BLOCK_BYTES = 1 << 30
_BLOCK_ROW_BYTES = 4_096


def needed_bytes(rows: int, users: int, items: int) -> int:
    """Returns an estimate of the memory of a training; lists of items are in files."""
    inverted = min(users, items, MOST_ITEMS)
    numbered = _NUMBERED_BYTES * (users + items)
    blocks = min(_MAX_BLOCK_BYTES, _BLOCK_ROW_BYTES * rows)
    return blocks + _ROW_BYTES * rows + numbered + _INVERTED_BYTES * inverted**2


def check_memory(rows: Interactions, free: int | None = None) -> None:
    """Raises InvalidRequest if a training on some rows needs more memory than is free.

    Args:
        free: Free bytes; None asks the system, and checks nothing if it does not say.
    """
    free = free_bytes() if free is None else free
    needed = needed_bytes(len(rows.user), len(rows.users), len(rows.items))
    if free is not None and needed > free:
        raise InvalidRequest(
            f"training on {len(rows.user)} interactions of {len(rows.users)} users with "
            f"{len(rows.items)} items needs about {needed / 2**30:.1f} GiB of memory, but "
            f"{free / 2**30:.1f} GiB are free; leave out old interactions with --keep-days, pass "
            "fewer, or build on a machine with more memory",
            field="interactions",
        )


class CandidateSeconds(NamedTuple):
    """Seconds of the candidates on two cores, of which only the ratios matter.

    ease: Of each of the two kinds of EASE. others: Of all other candidates.
    """

    ease: float
    others: float

    @classmethod
    def of(cls, rows: Interactions) -> CandidateSeconds:
        """Estimates them, as measured with films, a shop and reviews on 2026-12-01."""
        events, users, items = len(rows.user), len(rows.users), len(rows.items)
        others = 1.2e-5 * events + 7.5e-5 * (users + items) + 1.0
        items = min(items, MOST_ITEMS)
        return cls(4.1e-8 * items**2 + 3.75e-11 * min(users, items) ** 3, others)

    def total(self, *, repeats: bool) -> float:
        """Of all of them, with or without those for lists that may repeat items."""
        return (1 + repeats) * self.ease + self.others


# Of choosing a blend, of choosing the discount for popularity, and of the lists of a window.
BLEND_S, DEBIAS_S, LISTS_S = 7.0, 5.0, 4.5


def ranker_seconds(rows: Interactions) -> float:
    """Returns the seconds of training and comparing a ranker."""
    # They grow with its lists, whose number is limited.
    return 5.0 + min(85.0, len(rows.users) / 35)


class TrainingProgress:
    """Reports the progress of a training in percent of its estimated time.

    Args:
        rows: What it trains on.
        windows: The parts of the rows that it trains on to choose models, the largest first; empty
            if it cannot choose.
        advance: Called with percent that are done.
        ranks: Whether rankers are trained.
        repeats: Whether lists that may repeat items have models of their own.
    """

    def __init__(
        self,
        rows: Interactions,
        windows: Sequence[Interactions],
        advance: Callable[[int], None],
        *,
        ranks: bool,
        repeats: bool,
    ) -> None:
        kinds = 1 + repeats
        # Without rankers, models are compared on the first window alone.
        used = windows if ranks else windows[:1]
        self._total = sum(
            CandidateSeconds.of(one).total(repeats=repeats) for one in (rows, *used)
        ) + sum(map(sequence_seconds, (rows, *windows)))
        if windows:
            self._total += kinds * BLEND_S + DEBIAS_S
        if windows and ranks:
            self._total += len(windows) * LISTS_S + kinds * ranker_seconds(windows[0])
        self._advance = advance
        self._done, self._told = 0.0, 0

    def add(self, seconds: float) -> None:
        """Adds work that is done, in the seconds that it was estimated to take."""
        self._done += seconds
        # The last percent is that of the tables.
        percent = min(99, int(100 * self._done / self._total))
        if percent > self._told:
            self._advance(percent - self._told)
            self._told = percent

    def finish(self) -> None:
        """Adds what is left but the last percent; some work may not have been necessary."""
        self.add(self._total)
