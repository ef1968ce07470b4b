"""Candidates that are the same for everybody, by way of the caches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import NearlineError
from retrieval.cache.cached_list import CachedList, CacheLevel, ComputeList, ListKey
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.watermark import Watermark
from retrieval.recommend.candidates import CandidateQuery
from retrieval.recommend.filters import filter_digest
from retrieval.recommend.policies import Policy
from retrieval.recommend.shared_lists import is_trained, list_computation
from retrieval.recommend.similar_items import SimilarItems
from retrieval.recommend.strategies import item_from_list_name, shared_list_name
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Kinds of one list that are got ready for the next snapshot.
_VARIANTS = 4
# Lists that no rule looks further down in are so long: what users had is left out of them.
_SHORT = 64
_CACHED = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})


class CachedCandidates(NamedTuple):
    """Candidates from a cache.

    candidates: None: there is no such item. whole: There are no others, however far one looks.
    content: They are like the item by its vector; else by behaviour.
    """

    candidates: CachedList | None
    level: CacheLevel
    whole: bool
    content: bool

    @property
    def watermark(self) -> bytes | None:
        """Changes of items that it has; None: there is no list."""
        return None if self.candidates is None else self.candidates.watermark


class _Variant(NamedTuple):
    # Of a policy: surfaces with equal ones share their lists.
    digest: str
    payload: frozenset[c.PayloadField]
    depth: int


class _ListSpec(NamedTuple):
    key: ListKey
    reading: CandidateQuery
    policy: Policy
    item: str
    depth: int


class CandidateCache:
    """Reads such lists through the caches.

    Args:
        hot: The caches; closed with this.
        touched: By collection, knows which items were changed since its snapshot.
        similar: Finds items by the vectors of others.
    """

    def __init__(
        self, hot: TieredCache, touched: Mapping[str, ChangeTracker], similar: SimilarItems
    ) -> None:
        self._hot = hot
        self._similar = similar
        self._touched = touched
        self._variants: dict[str, Counter[_Variant]] = {}
        self._policies: dict[str, Policy] = {}

    def begin(
        self, reading: CandidateQuery, policy: Policy, item: str, enough: int
    ) -> Awaitable[CachedCandidates | None]:
        """Begins to read a list, without what was deleted since it was made.

        What is in this process is there at once; the rest goes on while other things are asked for.

        Args:
            reading: What is wanted of the items, and which.
            policy: Says how far it looks, and what it blocks.
            item: Id; empty: what the surface is made from without one.
            enough: Items that are wanted of it.
        Returns: A future of a list; of None where no such list can be had: with vectors, while
            shards are away, or without an item where the snapshot learned nothing.
        """
        served, payload, filter, inquiry = reading
        done: asyncio.Future[CachedCandidates | None] = asyncio.get_running_loop().create_future()
        if not payload <= _CACHED or not (item or served.learned):
            done.set_result(None)
            return done
        depth = _SHORT if enough <= _SHORT // 2 else policy.candidates
        variant = _Variant(policy.digest, payload, depth)
        # What nobody but the surface asks for is got ready for the next snapshot.
        if filter == policy.only:
            self._policies[policy.digest] = policy
            self._variants.setdefault(served.name, Counter())[variant] += 1
        key = _key(served, variant, shared_list_name(policy, item), filter)
        wanted = _ListSpec(key, reading, policy, item, depth)
        near = self._hot.near(key, self._compute(wanted, inquiry.least), inquiry.least)
        if near is not None:
            found, newer = self._read(wanted, *near)
            if newer is None:
                done.set_result(found)
                return done
        return asyncio.create_task(self._get(wanted))

    async def _get(self, wanted: _ListSpec) -> CachedCandidates | None:
        least = wanted.reading.inquiry.least
        compute, read = partial(self._compute, wanted), partial(self._read, wanted)
        try:
            return await self._hot.newest(wanted.key, compute, least, read)
        except NearlineError:
            return None

    def _read(
        self, wanted: _ListSpec, hot: CachedList | None, level: CacheLevel
    ) -> tuple[CachedCandidates, Watermark | None]:
        """Applies changes; gives the state that a list should have where this one is too old."""
        served, item = wanted.reading.served, wanted.item
        learned = served.learned
        content = bool(item) and (learned is None or not is_trained(learned, item))
        whole, newer = hot is None or len(hot.ids) < wanted.depth, None
        touched = self._touched.get(served.name)
        if touched is not None:
            hot, newer = touched.read(hot, item if content else "")
        return CachedCandidates(hot, level, whole, content), newer

    def _compute(self, wanted: _ListSpec, least: Watermark | None) -> ComputeList:
        _, reading, policy, item, depth = wanted
        anew = reading._replace(inquiry=RequestContext(None, least))
        return list_computation(anew, policy, item, depth, self._similar)

    async def prewarm(self, served: ServedCollection, most: int) -> int:
        """Gets ready what was asked for most, for a snapshot that is to be served next.

        Returns: How many lists are ready.
        """
        return await self._hot.prewarm(self._wanted(served, most))

    async def close(self) -> None:
        """Ends what is under way."""
        await self._hot.close()

    def _wanted(self, served: ServedCollection, most: int) -> Iterator[tuple[ListKey, ComputeList]]:
        variants = [one for one, _ in self._variants.get(served.name, Counter()).most_common()]
        for of in self._hot.popular(served.name, most):
            item = item_from_list_name(of)
            if not item and served.learned is None:
                continue
            for variant in islice(self._asking(variants, of, item), _VARIANTS):
                policy = self._policies[variant.digest]
                reading = CandidateQuery(served, variant.payload, policy.only, RequestContext())
                compute = list_computation(reading, policy, item, variant.depth, self._similar)
                yield _key(served, variant, of, policy.only), compute

    def _asking(self, variants: Sequence[_Variant], of: str, item: str) -> Iterator[_Variant]:
        """Returns those whose surfaces ask for a list of this name."""
        return (one for one in variants if shared_list_name(self._policies[one.digest], item) == of)


@lru_cache(64)
def _names(payload: frozenset[c.PayloadField]) -> str:
    return ",".join(sorted(one.value for one in payload))


def _key(served: ServedCollection, variant: _Variant, of: str, filter: c.Filter | None) -> ListKey:
    policy_digest, payload, depth = variant
    shown = f"{_names(payload)}/{depth}"
    return ListKey(served.name, served.snapshot_id, policy_digest, filter_digest(filter), shown, of)
