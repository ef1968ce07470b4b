"""Versions and owners of items, as known before a write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nearline import contract as c
from nearline.access.readers import Ownership
from nearline.errors import DeadlineExceeded, NotReady
from retrieval.changelog.change_log import ChangeLog
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from retrieval.writes.validation import valid_ids

# Wait for versions from shards: this long, or half of the remaining time of the caller.
_VERSIONS_S = 2.0
_VERSIONS_RATIO = 0.5
_NO_PAYLOAD: frozenset[c.PayloadField] = frozenset()
_ATTRIBUTES = frozenset({c.PayloadField.ATTRIBUTES})


class KnownItems(NamedTuple):
    """Versions of items in the served snapshot.

    versions: Version by id.
    away: Shards that did not answer.
    positions: Log position of the snapshot by partition; empty if it belongs to another log.
    foreign: Ids of items that the caller may not write.
    """

    versions: Mapping[str, int]
    away: frozenset[int]
    positions: Sequence[int]
    foreign: frozenset[str] = frozenset()


async def read_known_items(
    served: ServedCollection,
    ids: Sequence[str],
    deadline: float | None,
    log: ChangeLog,
    owner: Ownership | None,
) -> KnownItems:
    """Reads the versions of items from the shards, without waiting for unavailable ones.

    For an owner, also whose they are, in a state that has all changes made until now.
    """
    now = asyncio.get_running_loop().time()
    timeout_s = _VERSIONS_S
    if deadline is not None:
        timeout_s = min(timeout_s, _VERSIONS_RATIO * (deadline - now))
    least = None if owner is None else (await log.state()).head
    context = RequestContext(now + timeout_s, least)
    payload = _NO_PAYLOAD if owner is None else _ATTRIBUTES
    usable_ids = valid_ids(ids)
    if not usable_ids:
        return KnownItems({}, frozenset(), ())
    try:
        found = await item_lookup.fetch_items(served, usable_ids, payload, context)
    except (NotReady, DeadlineExceeded):
        return KnownItems({}, frozenset(range(len(served.shards))), ())
    versions = {document_id: item.version for document_id, item in found.items.items()}
    followed = {one.watermark.log_id for one in context.applied.values()}
    same_log = followed == {served.watermark.log_id}
    return KnownItems(
        versions,
        frozenset(context.failures),
        served.watermark.positions if same_log else (),
        frozenset(
            name
            for name, item in found.items.items()
            if owner is not None and not owner.includes(item.attributes)
        ),
    )
