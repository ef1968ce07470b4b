"""Counts of items in a Milvus collection, and of the values of their attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nearline.contract import Filter, Scalar
from nearline.errors import Unsupported
from retrieval.index.filtering.validation import unknown_attribute_error
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.rows import attribute_values
from retrieval.protocols.shard import FieldCounts, ShardCounts

# Milvus counts matches by itself; values have to be read.
MAX_MATCHES = 1_000_000
_FIRST = "chunk == 0"


async def count_matches(
    reading: MilvusReader, filter: Filter | None, fields: Sequence[str], deadline: float | None
) -> ShardCounts:
    """Counts the items that match, and the values of attributes among them; see `Shard.count`.

    Raises: Unsupported: the values of more than MOST_MATCHES items are to be counted.
    """
    wanted = reading.matching(filter, _FIRST)
    for field in fields:
        if field not in reading.kinds:
            raise unknown_attribute_error(field, list(reading.kinds), "facets.field")
    count = await reading.count(wanted, deadline)
    if not fields:
        return ShardCounts(count, [])
    if count > MAX_MATCHES:
        raise Unsupported(
            f"{count:,} items match, and over Milvus the values of {MAX_MATCHES:,} can be "
            "counted; narrow the filter, or count without facets",
            field="facets",
        )
    counted: list[Counter[Scalar]] = [Counter() for _ in fields]
    missing = [0] * len(fields)
    # What was counted may have changed since: the items are those whose values are counted.
    count = 0
    async for page in reading.pages(wanted, ["attributes"], deadline):
        count += len(page)
        for row in page:
            for place, field in enumerate(fields):
                values = attribute_values(row["attributes"], field, reading.kinds[field])
                counted[place].update(set(values))
                missing[place] += not values
    return ShardCounts(count, [FieldCounts(*both) for both in zip(counted, missing, strict=True)])
