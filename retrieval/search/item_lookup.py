"""Item ids as queries: the vectors of the documents, their mean, and the ids that led nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import MAX_EXAMPLES, IgnoredId, IgnoredReason, Item, PayloadField
from nearline.errors import InvalidRequest, NearlineError, NotFound, ShardsUnavailable
from nearline.filters import Filter
from nearline.snapshot import shard_of
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

_VECTOR = frozenset({PayloadField.VECTOR})


class ExampleQuery(NamedTuple):
    """Vector of one query by item ids, (d,) float32, and the ids left out."""

    vector: NDArray[np.float32]
    ignored: list[IgnoredId]


class LookupResult(NamedTuple):
    """Items by id, and the shards that did not answer."""

    items: dict[str, Item]
    failures: dict[int, NearlineError]


async def fetch_items(
    served: ServedCollection,
    ids: Iterable[str],
    payload: frozenset[PayloadField],
    inquiry: RequestContext,
    filter: Filter | None = None,
) -> LookupResult:
    """Reads items from the shards that their ids belong to; with a filter, those that match.

    Raises: ShardsUnavailable, DeadlineExceeded: none of those shards answered.
    """
    by_shard: dict[int, list[str]] = {}
    for document_id in dict.fromkeys(ids):
        by_shard.setdefault(shard_of(document_id, len(served.shards)), []).append(document_id)
    calls = {
        number: asyncio.ensure_future(
            served.shards[number].fetch(
                served.snapshot_id, part, payload, inquiry.deadline, (), inquiry.least, filter
            )
        )
        for number, part in by_shard.items()
    }
    answers = await fanout.gather(calls, inquiry.deadline, collection=served.name, full=False)
    inquiry.failures.update(answers.failures)
    for number, fetched in answers.results.items():
        inquiry.heard(number, (fetched.applied,))
    items = {item.id: item for fetched in answers.results.values() for item in fetched.items}
    return LookupResult(items, answers.failures)


def ignored_ids(
    served: ServedCollection, ids: Iterable[str], found: LookupResult
) -> list[IgnoredId]:
    """Returns the ids that were not found, each once, with the reason."""
    return [
        IgnoredId(document_id, _reason(served, document_id, found.failures))
        for document_id in dict.fromkeys(ids)
        if document_id not in found.items
    ]


def check_ids(ids: Sequence[str], limit: int, field: str) -> None:
    """Raises InvalidRequest where there are none, too many, or an empty one."""
    if not 1 <= len(ids) <= limit:
        raise InvalidRequest(f"{field} has {len(ids)} ids; 1..{limit} are allowed", field=field)
    if not all(ids):
        raise InvalidRequest(f"{field} has an empty id; leave it out", field=field)


async def build_queries(
    served: ServedCollection, queries: Mapping[str, Sequence[str]], inquiry: RequestContext
) -> list[ExampleQuery]:
    """Turns item ids into query vectors: the mean of the documents' vectors.

    Args:
        queries: Item ids by the field they stand in, one entry per query.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
    Returns: One example per query, in order.
    Raises: NotFound: a query has no id that exists. ShardsUnavailable: nor could be looked up.
    """
    for field, ids in queries.items():
        check_ids(ids, MAX_EXAMPLES, field)
    wanted = (document_id for ids in queries.values() for document_id in ids)
    found = await fetch_items(served, wanted, _VECTOR, inquiry)
    return [_example(served, f, ids, found) for f, ids in queries.items()]


def _example(
    served: ServedCollection, field: str, ids: Sequence[str], found: LookupResult
) -> ExampleQuery:
    left_out = ignored_ids(served, ids, found)
    vectors = [
        item.vector
        for document_id in dict.fromkeys(ids)
        if (item := found.items.get(document_id)) is not None and item.vector is not None
    ]
    if vectors:
        return ExampleQuery(np.mean(vectors, axis=0, dtype=np.float32), left_out)
    shown = ", ".join(repr(one.id) for one in left_out[:3])
    if any(one.reason is IgnoredReason.SHARD_UNAVAILABLE for one in left_out):
        raise ShardsUnavailable(
            f"{field}: the shards of items {shown} do not answer; try again later"
        )
    raise NotFound(
        f"{field}: collection {served.name!r} has none of the {len(left_out)} items ({shown}"
        f"{', …' if len(left_out) > 3 else ''}); check the ids",
        field=field,
    )


def _reason(
    served: ServedCollection, document_id: str, failures: Mapping[int, object]
) -> IgnoredReason:
    away = shard_of(document_id, len(served.shards)) in failures
    return IgnoredReason.SHARD_UNAVAILABLE if away else IgnoredReason.NOT_FOUND
