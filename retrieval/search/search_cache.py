"""A cache of search results: a search that many callers repeat runs once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from nearline import contract as c, wire
from nearline.errors import NearlineError, ShardsUnavailable
from retrieval.cache.cached_list import CachedList, CacheLevel, ListKey
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.watermark import Watermark
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Several callers may wait for one search, so the search does not use the timeout of the first one.
_SEARCH_S = 2.0
_CacheRead = tuple[CachedList | None, CacheLevel]
RunSearch = Callable[[RequestContext], Awaitable[c.HitList]]


class CachedSearch(NamedTuple):
    """The result of a search, the cache level it came from, and its watermark."""

    hits: c.HitList
    level: CacheLevel
    watermark: bytes


class SearchCache:
    """Answers searches from a cache in this process.

    Items deleted in the meantime are left out, and a result with a changed item is computed again.
    So only new items of the collection appear late, by at most the time that results are cached. A
    result that lacks a shard or may be behind the change log is returned but not cached.

    Args:
        lists: The cache; closed together with this object.
        trackers: By collection, the changes of items since its snapshot.
    """

    def __init__(self, lists: TieredCache, trackers: Mapping[str, ChangeTracker]) -> None:
        self._lists = lists
        self._trackers = trackers

    async def get(
        self,
        collection: ServedCollection,
        query: c.Query,
        options: c.SearchOptions,
        context: RequestContext,
        search: RunSearch,
    ) -> CachedSearch | None:
        """Returns the result of a search.

        Args:
            search: Runs the search in a context with its own deadline and watermark.
        Returns: None if the result cannot be cached or does not arrive in time; run the search
            without the cache then.
        """
        if not _is_cacheable(query, options):
            return None
        tracker = self._trackers.get(collection.name)

        def read(hot: CachedList | None, level: CacheLevel) -> tuple[_CacheRead, Watermark | None]:
            newer = None
            if tracker is not None:
                hot, newer = tracker.read(hot)
            return (hot, level), newer

        key = _key(collection, query, options)
        compute = partial(_make_compute, search, context)
        try:
            async with asyncio.timeout_at(context.deadline):
                hot, level = await self._lists.get_validated(
                    key, compute, context.min_watermark, read
                )
        except TimeoutError:
            return None
        except NearlineError as error:
            if error.peer_died:
                # The search may be the cause, so it is not repeated.
                raise
            return None
        assert hot is not None, "a search returned no list. This is a bug."
        return CachedSearch(c.HitList(hits=wire.lazy_hits(hot.messages)), level, hot.watermark)

    async def close(self) -> None:
        """Cancels running searches."""
        await self._lists.close()


def _is_cacheable(query: c.Query, options: c.SearchOptions) -> bool:
    """Returns whether a search has one text or vector and returns neither vectors nor reasons."""
    single = (query.text is None) != (query.vector is None) and not query.item_ids
    return single and not options.explain and c.PayloadField.VECTOR not in options.payload


def _make_compute(
    search: RunSearch, caller: RequestContext, min_watermark: Watermark | None
) -> Callable[[], Awaitable[CachedList]]:
    async def compute() -> CachedList:
        start, start_us = time.perf_counter(), time.time_ns() // 1_000
        deadline = asyncio.get_running_loop().time() + _SEARCH_S
        # If the embedder is slow, its first caller must still get an answer by words in time.
        context = RequestContext(
            deadline, min_watermark, caller.visible, embed_until=caller.embed_until
        )
        found = await search(context)
        if not context.complete:
            raise ShardsUnavailable("not every shard is up to date, so the result is not cached")
        return CachedList(
            tuple(hit.id for hit in found.hits),
            tuple(map(wire.hit_to_bytes, found.hits)),
            start_us,
            time.perf_counter() - start,
            context.watermark,
        )

    return compute


def _key(collection: ServedCollection, query: c.Query, options: c.SearchOptions) -> ListKey:
    if query.text is not None:
        subject = f"text:{_digest(query.text.encode(errors='surrogatepass'))}"
    else:
        assert query.vector is not None
        subject = f"vector:{query.vector.dtype}:{_digest(query.vector.tobytes())}"
    return ListKey(
        collection.name, collection.snapshot_id, "search", _options_digest(options), "", subject
    )


def _options_digest(options: c.SearchOptions) -> str:
    # Who asks, and requirements on an answer, which do not change its content.
    plain = replace(options, user_id="", session_id="", personal=0.0, unrecorded=False)
    plain = replace(plain, min_watermark=b"", require_full_coverage=False, snapshot_id="", unit="")
    # Not as a message, which takes ten times as long. Sets have an order within this process alone.
    return _digest(repr(plain).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
