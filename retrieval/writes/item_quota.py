"""Limits how many items of a collection a tenant may have."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeAlias

from nearline.access.readers import Ownership
from nearline.errors import InvalidRequest, NearlineError
from retrieval.changelog.records import Change, ChangeKind
from retrieval.search import listing
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Returns the most items of the caller's tenant, with whose limit it is; None: no limit.
ItemLimit: TypeAlias = Callable[[], tuple[str, int] | None]
# Items are counted this often; in between, those that this process adds are added to the count.
_COUNT_S: Final = 5.0
_MAX_TENANTS: Final = 10_000


class _Count(NamedTuple):
    items: int
    counted_s: float


class ItemQuota:
    """Refuses items of a tenant that has as many as it may have.

    The count is up to five seconds old, so that several routers together may let a few more pass.

    Args:
        limit: Returns the limit of the running call.
        clock: Returns seconds.
    """

    def __init__(self, limit: ItemLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._counts: dict[tuple[str, str], _Count] = {}

    async def refuse_beyond(
        self,
        served: ServedCollection,
        owner: Ownership,
        changes: Sequence[Change | NearlineError],
        known: Collection[str],
        deadline: float | None,
    ) -> Sequence[Change | NearlineError]:
        """Returns the changes, with an error in place of each new item for which there is no room.

        Args:
            served: The collection.
            owner: The items of the tenant.
            changes: Changes of a request, in order.
            known: Ids of items that exist already.
            deadline: Loop time to stop waiting at; None waits without limit.
        Raises: Errors of the shards, which count the items.
        """
        limit = self._limit()
        if limit is None:
            return changes
        new = [
            number
            for number, change in enumerate(changes)
            if isinstance(change, Change)
            and change.kind is ChangeKind.UPSERT
            and change.document_id not in known
        ]
        if not new:
            return changes
        whose, most = limit
        count = await self._count(served, owner, deadline)
        room = max(0, most - count.items)
        items = count.items + len(new[:room])
        self._counts[served.name, owner.tenant] = count._replace(items=items)
        error = InvalidRequest(
            f"{whose} has {items:,} items in {served.name!r}, and may have {most:,} (items); "
            "delete some, or ask the operator for a higher limit"
        )
        refused = frozenset(new[room:])
        return [error if number in refused else one for number, one in enumerate(changes)]

    async def _count(
        self, served: ServedCollection, owner: Ownership, deadline: float | None
    ) -> _Count:
        key = served.name, owner.tenant
        now_s = self._clock()
        count = self._counts.get(key)
        if count is not None and now_s - count.counted_s < _COUNT_S:
            return count
        items, _ = await listing.count_items(served, owner.filter, (), RequestContext(deadline))
        if (newer := self._counts.get(key)) is not count and newer is not None:
            # Of requests that count at the same time, the first may have filled the room already.
            return newer
        if len(self._counts) >= _MAX_TENANTS:
            self._counts.clear()
        counted = self._counts[key] = _Count(items, now_s)
        return counted
