"""The best units (documents, chunks or groups) of a leg, from a Milvus that finds rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from retrieval.milvus.layout import MAX_ROWS, MilvusHit, parse_key

_WIDEN = 4
# Asked for beyond what is wanted, so that the last ones may have equals.
_TIE_SLACK = 4


class RankedRow(NamedTuple):
    """A row that was found; in the order of hits: best score, then document id, then chunk.

    negated: Score, negated. fields: Those that were asked for.
    """

    negated: float
    id: str
    chunk: int
    fields: Mapping[str, Any]


# Finds the best `ask` rows for some of the queries, given by their places.
FindRows = Callable[[Sequence[int], int], Awaitable[Sequence[Sequence[MilvusHit]]]]
# Gives the unit that a row belongs to.
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
    """Finds, per query, the best row of each of the k best units, in the order of hits.

    A prefix of the best rows that holds k units holds the k best ones, so the ask is widened until
    it does, no more rows come, or MOST_ROWS were asked for.

    Args:
        find: Finds rows; fewer than asked for only where there are no more.
        queries: Number of queries.
        k: Units wanted, >= 1.
        first_ask: Rows to ask for at first.
        unit_of: Which unit a row belongs to.
        exact: Rows are the best there are; of equal ones the right ones are wanted, too.
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
