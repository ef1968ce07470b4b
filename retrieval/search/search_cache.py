"""Answers to searches that are kept for a while: what many ask for is found once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

from nearline import contract as c
from nearline import wire
from nearline.errors import NearlineError, ShardsUnavailable
from retrieval.cache.cached_list import CachedList, CacheLevel, ListKey, message_digest
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.watermark import Watermark
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Several may wait for an answer: it has its own time, not that of who asked first.
_SEARCH_S = 2.0
_CacheRead = tuple[CachedList | None, CacheLevel]
RunSearch = Callable[[RequestContext], Awaitable[c.HitList]]


class CachedSearch(NamedTuple):
    """An answer, where it came from, and the changes of items that it has."""

    hits: c.HitList
    level: CacheLevel
    watermark: bytes


class SearchCache:
    """Gives answers to searches by way of a cache of this process.

    Items that were deleted since are left out, and an answer with one that was changed is found
    anew, so only what is new in the collection comes late, by as long as answers are kept. One that
    not all shards took part in, or that may be behind the change log, is given and not kept.

    Args:
        lists: The cache; closed with this.
        touched: By collection, knows which items were changed since its snapshot.
    """

    def __init__(self, lists: TieredCache, touched: Mapping[str, ChangeTracker]) -> None:
        self._lists = lists
        self._touched = touched

    async def get(
        self,
        served: ServedCollection,
        query: c.Query,
        options: c.SearchOptions,
        inquiry: RequestContext,
        search: RunSearch,
    ) -> CachedSearch | None:
        """Returns the answer to a search.

        Args:
            search: Searches, told until when and how new a state is wanted.
        Returns: None where it cannot be kept, or had in time: it is to be searched without this.
        """
        if not _is_cacheable(query, options):
            return None
        touched = self._touched.get(served.name)

        def read(hot: CachedList | None, level: CacheLevel) -> tuple[_CacheRead, Watermark | None]:
            newer = None
            if touched is not None:
                hot, newer = touched.read(hot)
            return (hot, level), newer

        key, compute = _key(served, query, options), partial(_make_compute, search)
        try:
            async with asyncio.timeout_at(inquiry.deadline):
                hot, level = await self._lists.newest(key, compute, inquiry.least, read)
        except (NearlineError, TimeoutError):
            return None
        assert hot is not None, "a search found nothing to keep. This is a bug."
        return CachedSearch(c.HitList(hits=wire.lazy_hits(hot.messages)), level, hot.watermark)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._lists.close()


def _is_cacheable(query: c.Query, options: c.SearchOptions) -> bool:
    """Returns whether a search is by one text or vector, and asks for no vectors or reasons."""
    one = (query.text is None) != (query.vector is None) and not query.item_ids
    return one and not options.explain and c.PayloadField.VECTOR not in options.payload


def _make_compute(
    search: RunSearch, least: Watermark | None
) -> Callable[[], Awaitable[CachedList]]:
    async def compute() -> CachedList:
        began, began_us = time.perf_counter(), time.time_ns() // 1_000
        inquiry = RequestContext(asyncio.get_running_loop().time() + _SEARCH_S, least)
        found = await search(inquiry)
        if inquiry.failures or inquiry.served_by.rung:
            raise ShardsUnavailable("not every shard is up to date, so the answer is not kept")
        return CachedList(
            tuple(hit.id for hit in found.hits),
            tuple(map(wire.hit_to_bytes, found.hits)),
            began_us,
            time.perf_counter() - began,
            inquiry.watermark,
        )

    return compute


def _key(served: ServedCollection, query: c.Query, options: c.SearchOptions) -> ListKey:
    if query.text is not None:
        of = f"text:{query.text}"
    else:
        assert query.vector is not None
        digest = hashlib.blake2b(query.vector.tobytes(), digest_size=16).hexdigest()
        of = f"vector:{query.vector.dtype}:{digest}"
    return ListKey(served.name, served.snapshot_id, "search", _digest_of(options), "", of)


@lru_cache(1_024)
def _digest_of(options: c.SearchOptions) -> str:
    # What an answer must fulfil is no part of what it is.
    plain = replace(
        options, min_watermark=b"", require_full_coverage=False, snapshot_id="", unit=""
    )
    return message_digest(wire.options_to_proto(plain))
