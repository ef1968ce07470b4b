"""Reads items by id from the shards that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nearline.contract import IgnoredId, IgnoredReason, Item, PayloadField
from nearline.errors import InvalidRequest, NearlineError
from nearline.filters import Filter, both
from nearline.store.snapshot import shard_of
from nearline.wire.limits import Limit, check_count
from retrieval.protocols.shard import ItemsRequest
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


class LookupResult(NamedTuple):
    """Items by id, and the errors of failed shards by number."""

    items: dict[str, Item]
    failures: dict[int, NearlineError]


async def fetch_items(
    collection: ServedCollection,
    ids: Iterable[str],
    payload: frozenset[PayloadField],
    context: RequestContext,
    filter: Filter | None = None,
) -> LookupResult:
    """Reads items from the shards that their ids belong to; with a filter, only matching items.

    Items that the caller may not see do not exist.

    Raises: ShardsUnavailable, DeadlineExceeded: none of those shards answered.
    """
    matching = both(filter, context.visible)
    by_shard: dict[int, list[str]] = {}
    for document_id in dict.fromkeys(ids):
        by_shard.setdefault(shard_of(document_id, len(collection.shards)), []).append(document_id)
    calls = {
        number: collection.shards[number].fetch(
            collection.snapshot_id,
            ItemsRequest(shard_ids, payload, (), matching, context.min_watermark),
            context.deadline,
        )
        for number, shard_ids in by_shard.items()
    }
    results, failures = await fanout.gather_reads(calls, context, collection=collection.name)
    items = {item.id: item for fetched in results.values() for item in fetched.items}
    return LookupResult(items, failures)


def ignored_ids(
    collection: ServedCollection, ids: Iterable[str], found: LookupResult
) -> list[IgnoredId]:
    """Returns the ids that were not found, each once, with the reason."""
    return [
        IgnoredId(document_id, _reason(collection, document_id, found.failures))
        for document_id in dict.fromkeys(ids)
        if document_id not in found.items
    ]


def check_ids(ids: Sequence[str], limit: Limit, field: str) -> None:
    """Raises InvalidRequest unless there are as many ids as is allowed, and none is empty."""
    check_count(len(ids), field, limit)
    if not all(ids):
        raise InvalidRequest(f"{field} has an empty id; leave it out", field=field)


def _reason(
    collection: ServedCollection, document_id: str, failures: Mapping[int, object]
) -> IgnoredReason:
    failed = shard_of(document_id, len(collection.shards)) in failures
    return IgnoredReason.SHARD_UNAVAILABLE if failed else IgnoredReason.NOT_FOUND
