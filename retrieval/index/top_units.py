"""The best units (documents, chunks or groups) from an engine that only finds rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")
_GROWTH = 4


class TopRows(NamedTuple):
    """Rows found for one query, ordered by (score descending, row ascending).

    rows: (m,) int64. scores: (m,) float32.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


# Returns the best rows for some queries: query numbers, number of rows -> one record per query.
FindRows = Callable[[NDArray[np.int64], int], Sequence[TopRows]]
# Returns the number of the unit that each row belongs to.
UnitOf = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class WideningSearch(Generic[_T]):
    """Repeats a search for more and more rows until each query has its k best units.

    A prefix of the best rows that contains k units contains the k best units. Queries whose prefix
    was too short are searched again for four times as many rows.

    pending: Numbers of the queries to search. limit: Rows to search for.

    Args:
        queries: Number of queries.
        first_limit: Rows to search for at first.
        max_limit: Rows to search for at most.
    """

    def __init__(self, queries: int, first_limit: int, max_limit: int) -> None:
        self.pending: Sequence[int] = range(queries)
        self.limit = min(first_limit, max_limit)
        self._max_limit = max_limit
        self._results: dict[int, _T] = {}

    @property
    def at_max_limit(self) -> bool:
        """Whether the search cannot become wider."""
        return self.limit == self._max_limit

    @property
    def results(self) -> list[_T]:
        """The results of all queries, once none is pending."""
        return [self._results[query] for query in range(len(self._results))]

    def record(self, results: Iterable[_T | None]) -> None:
        """Takes the results of the pending queries; None for each that needs more rows."""
        repeated = []
        for query, result in zip(self.pending, results, strict=True):
            if result is None:
                repeated.append(query)
            else:
                self._results[query] = result
        self.pending = repeated
        self.limit = min(self.limit * _GROWTH, self._max_limit)


def find_top_units(
    find: FindRows,
    queries: int,
    k: int,
    *,
    first_limit: int,
    rows: int,
    unit_of: UnitOf,
    most_units: Callable[[], int] | None = None,
) -> list[TopRows]:
    """Returns, for each query, the best row of each of the k best units.

    Args:
        find: Finds rows; returns fewer than requested only if there are no more.
        queries: Number of queries.
        k: Number of units.
        first_limit: Rows to search for at first.
        rows: Number of rows in the index.
        unit_of: Maps rows to units.
        most_units: Returns a number that the units do not exceed. Optional; asked once, if the
            first rows have fewer than k: a search for what does not exist would read every row.
    """
    search = WideningSearch[TopRows](queries, max(k, first_limit), rows)

    def best_units(found: TopRows) -> TopRows | None:
        nonlocal k, most_units
        firsts = np.sort(np.unique(unit_of(found.rows), return_index=True)[1])[:k]
        if len(firsts) < k and not search.at_max_limit and len(found.rows) >= search.limit:
            if most_units is not None:
                k, most_units = min(k, most_units()), None
            if len(firsts) < k:
                return None
        return TopRows(found.rows[firsts], found.scores[firsts])

    while search.pending:
        found = find(np.array(search.pending), search.limit)
        search.record(map(best_units, found))
    return search.results


def best_per_run(
    scores: NDArray[np.float32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the place and score of the best entry of each run; of equal scores the first.

    Args:
        scores: (n,) the runs, one after another.
        counts: (m,) lengths of the runs, each >= 1, n in total.
    """
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    best = np.maximum.reduceat(scores, starts) if len(counts) else scores
    is_best = scores == np.repeat(best, counts)
    places = np.flatnonzero(is_best)
    runs = np.repeat(np.arange(len(counts)), counts)[places]
    return places[np.unique(runs, return_index=True)[1]], best
