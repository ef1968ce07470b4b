"""The best units (documents, chunks or groups) of a leg, from an engine that finds rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_WIDEN = 4


class TopRows(NamedTuple):
    """Rows of the index found for one query, (score descending, row ascending).

    rows: (m,) int64. scores: (m,) float32.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


# Finds the best `ask` rows for some of the queries, given by their places: one record for each.
FindRows = Callable[[NDArray[np.int64], int], Sequence[TopRows]]
# Gives the unit that each row belongs to, as a number.
UnitOf = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def find_top_units(
    find: FindRows, queries: int, k: int, *, first_ask: int, rows: int, unit_of: UnitOf
) -> list[TopRows]:
    """Finds, per query, the best row of each of the k best units.

    A prefix of the best rows that holds k units holds the k best ones, so the ask is widened until
    it does, or until no more rows come.

    Args:
        find: Finds rows; fewer than asked for only where there are no more.
        queries: Number of queries.
        k: Units wanted.
        first_ask: Rows to ask for at first.
        rows: All there are.
        unit_of: Which unit a row belongs to.
    """
    ask = min(max(k, first_ask), rows)
    done: dict[int, TopRows] = {}
    pending = np.arange(queries)
    while len(pending):
        left = []
        for query, found in zip(pending.tolist(), find(pending, ask), strict=True):
            firsts = np.sort(np.unique(unit_of(found.rows), return_index=True)[1])[:k]
            if len(firsts) < k and ask < rows and len(found.rows) >= ask:
                left.append(query)
            else:
                done[query] = TopRows(found.rows[firsts], found.scores[firsts])
        pending = np.array(left, np.int64)
        ask = min(ask * _WIDEN, rows)
    return [done[query] for query in range(queries)]


def best_per_run(
    scores: NDArray[np.float32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the place and score of the best entry of each run; the first where scores are equal.

    Args:
        scores: (n,) runs side by side.
        counts: (m,) lengths of the runs, each >= 1, n in all.
    """
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    best = np.maximum.reduceat(scores, starts) if len(counts) else scores
    is_best = scores == np.repeat(best, counts)
    # Of equal ones the first: the runs stay in order, so the first place of each run is unique.
    places = np.flatnonzero(is_best)
    runs = np.repeat(np.arange(len(counts)), counts)[places]
    return places[np.unique(runs, return_index=True)[1]], best
