"""Finds the best units (documents, chunks or groups) of a leg among rows of Milvus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from retrieval.milvus.layout import MAX_ROWS, MilvusHit, parse_key

_WIDEN = 4
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

    If a prefix of the best rows contains k units, these are the k best ones. So the number of rows
    is increased until the prefix does, no more rows match, or MAX_ROWS are requested.

    Args:
        find: Finds rows; returns fewer than requested only if no more match.
        queries: Number of queries.
        k: Number of units, >= 1.
        first_ask: Rows to request at first.
        unit_of: Returns the unit of a row.
        exact: Whether `find` is exact, so that ties must be resolved exactly as well.
    """
    ask = min(max(k, first_ask) + (_TIE_SLACK if exact else 0), MAX_ROWS)
    done: dict[int, list[RankedRow]] = {}
    pending = list(range(queries))
    while pending:
        left = []
        for query, found in zip(pending, await find(pending, ask), strict=True):
            rows = sorted(RankedRow(-one.score, *parse_key(one.key), one.fields) for one in found)
            firsts: dict[Hashable, RankedRow] = {}
            for row in rows:
                firsts.setdefault(unit_of(row), row)
            best = list(firsts.values())[:k]
            whole = len(rows) < ask or ask == MAX_ROWS
            if whole or (len(best) == k and not (exact and best[-1].negated == rows[-1].negated)):
                done[query] = best
            else:
                left.append(query)
        pending = left
        ask = min(ask * _WIDEN, MAX_ROWS)
    return [done[query] for query in range(queries)]
