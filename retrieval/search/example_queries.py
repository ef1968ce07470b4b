"""Queries by example: item ids become the mean of their documents' vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import IgnoredId, IgnoredReason, PayloadField
from nearline.errors import NotFound, ShardsUnavailable
from nearline.wire.limits import LIMITS
from retrieval.search.collection import ServedCollection
from retrieval.search.item_lookup import LookupResult, check_ids, fetch_items, ignored_ids
from retrieval.search.request_context import RequestContext

_VECTOR = frozenset({PayloadField.VECTOR})


class ExampleQuery(NamedTuple):
    """The vector of a query by item ids, (d,) float32, and the ids that could not be used."""

    vector: NDArray[np.float32]
    ignored: list[IgnoredId]


async def build_queries(
    collection: ServedCollection, examples: Mapping[str, Sequence[str]], context: RequestContext
) -> list[ExampleQuery]:
    """Turns item ids into query vectors.

    Args:
        collection: Collection that holds the items.
        examples: The item ids of each query, by the field that names them.
        context: Records failed shards and the progress of live changes in the others.
    Returns: One query per entry, in order.
    Raises: NotFound: none of the ids of a query exists. ShardsUnavailable: none was found, and
        some could not be looked up.
    """
    for field, ids in examples.items():
        check_ids(ids, LIMITS["ItemIds.ids"], field)
    all_ids = (document_id for ids in examples.values() for document_id in ids)
    found = await fetch_items(collection, all_ids, _VECTOR, context)
    return [_query(collection, field, ids, found) for field, ids in examples.items()]


def _query(
    collection: ServedCollection, field: str, ids: Sequence[str], found: LookupResult
) -> ExampleQuery:
    ignored = ignored_ids(collection, ids, found)
    vectors = [
        item.vector
        for document_id in dict.fromkeys(ids)
        if (item := found.items.get(document_id)) is not None and item.vector is not None
    ]
    if vectors:
        return ExampleQuery(np.mean(vectors, axis=0, dtype=np.float32), ignored)
    sample = ", ".join(repr(one.id) for one in ignored[:3])
    if any(one.reason is IgnoredReason.SHARD_UNAVAILABLE for one in ignored):
        raise ShardsUnavailable(
            f"{field}: the shards of items {sample} do not answer; try again later"
        )
    missing = "no such item" if len(ignored) == 1 else f"none of the {len(ignored)} items"
    raise NotFound(
        f"{field}: collection {collection.name!r} has {missing} ({sample}"
        f"{', …' if len(ignored) > 3 else ''}); check the ids",
        field=field,
    )
