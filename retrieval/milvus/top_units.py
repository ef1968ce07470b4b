"""Finds the best units (documents, chunks or groups) of a leg in Milvus, or of both legs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from retrieval.index.top_units import WideningSearch
from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import MAX_ROWS, MilvusHit, make_key, parse_key
from retrieval.milvus.reader import in_batches

# Rows requested in addition to the wanted number, to include rows tied with the last one.
_TIE_SLACK = 4
# Finds the best rows of a leg for one query: (maximum number of rows, expression) -> rows.
FindMatching = Callable[[int, str], Awaitable[Sequence[MilvusHit]]]


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


class HybridCandidate(NamedTuple):
    """A candidate of both legs.

    dense: Best row by vector.
    lexical: Best row by words; if the candidate has no word of the query, `dense` with score 0.
    """

    dense: RankedRow
    lexical: RankedRow


async def complete_scores(
    dense: Sequence[RankedRow],
    lexical: Sequence[RankedRow],
    *,
    chunks: int,
    unit_of: UnitOf,
    find_dense: FindMatching,
    find_words: FindMatching,
) -> list[HybridCandidate]:
    """Returns the candidates of one query, with the scores that only the other leg has found.

    Args:
        dense, lexical: Best units of each leg.
        chunks: Rows to request per document at first.
        unit_of: `document_of` or `chunk_of`.
        find_dense, find_words: Search each leg for the query.
    """

    async def missing(rows: Sequence[RankedRow], find: FindMatching) -> dict[Hashable, RankedRow]:
        async def read(expression: str, units: int) -> list[RankedRow]:
            async def find_rows(_: Sequence[int], ask: int) -> list[Sequence[MilvusHit]]:
                return [await find(ask, expression)]

            first_ask = units * (chunks if unit_of is document_of else 1)
            (best,) = await find_top_units(
                find_rows, 1, units, first_ask=first_ask, unit_of=unit_of, exact=True
            )
            return best

        expressions = _unit_expressions(rows, unit_of)
        found = await asyncio.gather(*(read(text, units) for text, units in expressions.items()))
        return {unit_of(row): row for best in found for row in best}

    by_vector = {unit_of(row): row for row in dense}
    by_words = {unit_of(row): row for row in lexical}
    more_dense, more_words = await asyncio.gather(
        missing([row for row in lexical if unit_of(row) not in by_vector], find_dense),
        missing([row for row in dense if unit_of(row) not in by_words], find_words),
    )
    by_vector |= more_dense
    by_words |= more_words
    return [
        HybridCandidate(row, by_words.get(unit) or row._replace(negated=0.0))
        for unit, row in by_vector.items()
    ]


def _unit_expressions(rows: Sequence[RankedRow], unit_of: UnitOf) -> Mapping[str, int]:
    """Returns expressions that match the units of rows, each with its number of units."""
    if unit_of is document_of:
        batches = in_batches(dict.fromkeys(row.id for row in rows))
        return {any_of("document", batch): len(batch) for batch in batches}
    batches = in_batches(make_key(row.id, row.chunk) for row in rows)
    return {any_of("key", batch): len(batch) for batch in batches}
