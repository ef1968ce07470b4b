"""Lists and counts the items of a collection."""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone
from nearline.filters import In, both
from nearline.wire.limits import LIMITS, check_count, check_range
from retrieval.protocols.shard import CountRequest, FieldCounts, ScanRequest
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext, check_names

# Longer ones are forged: an id has at most 512 bytes.
_MAX_TOKEN = 8_192


class _PageToken(NamedTuple):
    """The end of a page: its snapshot, its last id, and a digest of the filter."""

    snapshot_id: str
    after_id: str
    filter_digest: str

    def encode(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> _PageToken:
        try:
            if len(text) > _MAX_TOKEN:
                raise ValueError(len(text))
            parts = json.loads(base64.urlsafe_b64decode(text))
            if not isinstance(parts, list) or not all(isinstance(one, str) for one in parts):
                raise TypeError(parts)
            token = cls(*parts)
            token.after_id.encode()
            return token
        except (binascii.Error, ValueError, TypeError, RecursionError) as error:
            raise InvalidRequest(
                "page_token was not issued by this service; start again without page_token",
                field="page_token",
            ) from error


class Page(NamedTuple):
    """Items in id order, and the token of the next page."""

    items: Sequence[c.Item]
    next_page_token: str


def snapshot_of_token(token: str) -> str:
    """Returns the id of the snapshot that a list began on.

    Raises: InvalidRequest: the token was not issued by this service.
    """
    return _PageToken.decode(token).snapshot_id


async def read_page(
    collection: ServedCollection,
    *,
    size: int,
    token: str,
    filter: c.Filter | None,
    payload: frozenset[c.PayloadField],
    context: RequestContext,
) -> Page:
    """Reads one page of the items that match.

    Raises: InvalidRequest: the size is out of range, or the token belongs to another list.
        SnapshotGone: the snapshot of the token is no longer served. ShardsUnavailable: a shard did
        not answer.
    """
    check_range(size, "page_size", LIMITS["ListItemsRequest.page_size"]._replace(least=1))
    check_names(collection, context.visible, filter)
    filter = both(filter, context.visible)
    digest = _digest(filter)
    after_id = ""
    if token:
        last = _PageToken.decode(token)
        if last.filter_digest != digest:
            raise InvalidRequest(
                "page_token belongs to a list with a different filter; send the same filter for "
                "every page",
                field="page_token",
            )
        if last.snapshot_id != collection.snapshot_id:
            raise SnapshotGone(
                f"the list began on snapshot {last.snapshot_id}, but {collection.snapshot_id} is "
                "served now; start again without page_token",
                field="page_token",
            )
        after_id = last.after_id
    request = ScanRequest(after_id, size, filter, payload, context.min_watermark)
    calls = {
        number: shard.scan(collection.snapshot_id, request, context.deadline)
        for number, shard in enumerate(collection.shards)
    }
    results, _ = await fanout.gather_reads(calls, context, collection=collection.name, full=True)
    merged = heapq.merge(*(read.items for read in results.values()), key=lambda item: item.id)
    items = list(itertools.islice(merged, size))
    # A full page may be the last one; the next page is then empty.
    full = len(items) == size
    next_token = _PageToken(collection.snapshot_id, items[-1].id, digest).encode() if full else ""
    return Page(items, next_token)


async def count_items(
    collection: ServedCollection,
    filter: c.Filter | None,
    facets: Sequence[c.Facet],
    context: RequestContext,
) -> tuple[int, list[c.FacetCounts]]:
    """Counts the items that match, and the values of attributes among them.

    Raises: InvalidRequest: too many facets, or a limit out of range. Errors of the shards.
    """
    check_count(len(facets), "facets", LIMITS["CountItemsRequest.facets"])
    for number, facet in enumerate(facets):
        values = LIMITS["Facet.limit"]._replace(least=1)
        check_range(facet.limit, f"facets[{number}].limit", values)
    fields = [facet.field for facet in facets]
    check_names(collection, context.visible, filter, [(one, "facets.field") for one in fields])
    request = CountRequest(both(filter, context.visible), fields, context.min_watermark)
    calls = {
        number: shard.count(collection.snapshot_id, request, context.deadline)
        for number, shard in enumerate(collection.shards)
    }
    results, _ = await fanout.gather_reads(calls, context, collection=collection.name)
    parts = list(results.values())
    counts = [
        _merge_facet(facet, [part.fields[number] for part in parts], context.visible)
        for number, facet in enumerate(facets)
    ]
    return sum(part.count for part in parts), counts


def _merge_facet(
    facet: c.Facet, parts: Sequence[FieldCounts], visible: c.Filter | None
) -> c.FacetCounts:
    total: Counter[c.Scalar] = Counter()
    for part in parts:
        total.update(part.counts)
    if isinstance(visible, In) and facet.field == visible.field:
        # Who else may read an item is nobody's business.
        total = Counter({value: total[value] for value in visible.values if value in total})
    order = sorted(total.items(), key=lambda entry: (-entry[1], _sort_key(entry[0])))
    return c.FacetCounts(
        field=facet.field,
        counts=order[: facet.limit],
        distinct=len(total),
        missing=sum(part.missing for part in parts),
    )


def _sort_key(value: c.Scalar) -> tuple[float, str]:
    if isinstance(value, datetime):
        return value.timestamp(), ""
    return (0.0, value) if isinstance(value, str) else (float(value or 0), "")


def _digest(filter: c.Filter | None) -> str:
    return hashlib.sha256(repr(filter).encode()).hexdigest()[:16] if filter else ""
