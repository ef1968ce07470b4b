"""Candidates of a hybrid search over Milvus, each with its true score in both legs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from retrieval.milvus.filters import any_of
from retrieval.milvus.layout import MilvusHit, make_key
from retrieval.milvus.reader import in_batches
from retrieval.milvus.top_units import RankedRow, UnitOf, document_of, find_top_units

# Finds the best rows of a leg for one query: (maximum number of rows, expression) -> rows.
FindMatching = Callable[[int, str], Awaitable[Sequence[MilvusHit]]]


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
