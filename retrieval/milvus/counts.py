"""Counts items of a Milvus collection, and the values of their attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nearline.contract import Filter, Scalar
from nearline.errors import Unsupported
from retrieval.index.filtering.validation import unknown_attribute_error
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.rows import attribute_values
from retrieval.protocols.shard import FieldCounts, ShardCounts

# Milvus counts the matches; attribute values have to be read and counted here.
MAX_MATCHES = 1_000_000
_FIRST_CHUNK = "chunk == 0"


async def count_matches(
    reader: MilvusReader, filter: Filter | None, fields: Sequence[str], deadline: float | None
) -> ShardCounts:
    """Counts the items that match, and the values of their attributes; see `Shard.count`.

    Raises: Unsupported: More than MAX_MATCHES items match and their values are requested.
    """
    wanted = reader.matching(filter, _FIRST_CHUNK)
    for field in fields:
        if field not in reader.kinds:
            raise unknown_attribute_error(field, list(reader.kinds), "facets.field")
    count = await reader.count(wanted, deadline)
    if not fields:
        return ShardCounts(count, [])
    if count > MAX_MATCHES:
        raise Unsupported(
            f"{count:,} items match; with Milvus, facets are limited to {MAX_MATCHES:,} items. "
            "Narrow the filter, or count without facets",
            field="facets",
        )
    counted: list[Counter[Scalar]] = [Counter() for _ in fields]
    missing = [0] * len(fields)
    # Items may have changed since, so the count is that of the items read here.
    count = 0
    async for page in reader.pages(wanted, ["attributes"], deadline):
        count += len(page)
        for row in page:
            for place, field in enumerate(fields):
                values = attribute_values(row["attributes"], field, reader.kinds[field])
                counted[place].update(set(values))
                missing[place] += not values
    return ShardCounts(count, [FieldCounts(*both) for both in zip(counted, missing, strict=True)])
