"""Finds the best units (documents, chunks or groups) of a leg among rows of Milvus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from retrieval.index.top_units import WideningSearch
from retrieval.milvus.layout import MAX_ROWS, MilvusHit, parse_key

# Rows requested beyond the wanted number, to include ties of the last one.
_TIE_SLACK = 4


class RankedRow(NamedTuple):
    """A found row; rows sort like hits: best score, then document id, then chunk.

    negated: Negated score.
    fields: The fields requested.
    """

    negated: float
    id: str
    chunk: int
    fields: Mapping[str, Any]


# Finds the best `ask` rows of the queries at some places: (places, ask) -> rows of each.
FindRows = Callable[[Sequence[int], int], Awaitable[Sequence[Sequence[MilvusHit]]]]
# Returns the unit of a row.
UnitOf = Callable[[RankedRow], Hashable]


def document_of(row: RankedRow) -> Hashable:
    """Returns the document of a row, as a unit."""
    return row.id


def chunk_of(row: RankedRow) -> Hashable:
    """Returns the row itself, as a unit."""
    return row.id, row.chunk


async def find_top_units(
    find: FindRows, queries: int, k: int, *, first_ask: int, unit_of: UnitOf, exact: bool
) -> list[list[RankedRow]]:
    """Returns, per query, the best row of each of the k best units, in the order of hits.

    Widens the search until it returns k units, fewer rows than requested, or MAX_ROWS rows.

    Args:
        find: Finds rows; returns fewer than requested only if no more match.
        queries: Number of queries.
        k: Number of units, >= 1.
        first_ask: Rows to request at first.
        unit_of: Returns the unit of a row.
        exact: Whether `find` is exact, so that ties must be resolved exactly as well.
    """
    first_limit = max(k, first_ask) + (_TIE_SLACK if exact else 0)
    search = WideningSearch[list[RankedRow]](queries, first_limit, MAX_ROWS)

    def best_units(found: Sequence[MilvusHit]) -> list[RankedRow] | None:
        rows = sorted(RankedRow(-one.score, *parse_key(one.key), one.fields) for one in found)
        firsts: dict[Hashable, RankedRow] = {}
        for row in rows:
            firsts.setdefault(unit_of(row), row)
        best = list(firsts.values())[:k]
        whole = len(rows) < search.limit or search.at_max_limit
        if whole or (len(best) == k and not (exact and best[-1].negated == rows[-1].negated)):
            return best
        return None

    while search.pending:
        search.record(map(best_units, await find(search.pending, search.limit)))
    return search.results
