"""Reads the candidates that everyone shares through the caches, and computes them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

from nearline import contract as c, wire
from nearline.errors import NearlineError, ShardsUnavailable
from nearline.times import to_us
from retrieval.cache.cached_list import CachedList, CacheLevel, ComputeList, ListKey
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.watermark import Watermark
from retrieval.recommend.brand_spread import ATTRIBUTES, brand_attribute, spread
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery
from retrieval.recommend.fresh_items import fresh_items
from retrieval.recommend.policies import NO_PAYLOAD, Policy, filter_digest
from retrieval.recommend.pool_filler import add_new, rank
from retrieval.recommend.similar_items import find_similar_items
from retrieval.recommend.strategies import RankingContext, item_of_list, strategy_of
from retrieval.recommend.user_profile import UserProfile
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Variants of one list that are computed ahead for the next snapshot.
_MAX_VARIANTS = 4
# Length of lists that no rule reorders; long enough to leave out the items that users had.
_SHORT = 64
_CACHEABLE = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})
# Several requests may wait for one computation, so it does not depend on the deadline of the first.
_COMPUTE_S = 2.0


def list_computation(
    query: CandidateQuery, policy: Policy, item_id: str, depth: int, debias: float | None = None
) -> ComputeList:
    """Returns a function that computes a list from behaviour, else from vectors, else new items.

    Args:
        query: Which items match and which fields to read; its context holds the changes that the
            list must reflect.
        policy: The policy of the surface.
        item_id: Item that the list goes with; empty: none.
        depth: Items needed.
        debias: Discount of the request for popularity; None uses the policy's.
    """
    if debias is None:
        debias = policy.popularity_debias

    async def compute() -> CachedList | None:
        start, start_us = time.perf_counter(), time.time_ns() // 1_000
        deadline = asyncio.get_running_loop().time() + _COMPUTE_S
        context = RequestContext(deadline, query.context.min_watermark, query.context.visible)
        brand = brand_attribute(query.served, policy, None)
        payload = query.payload | ATTRIBUTES if brand else query.payload
        own_query = query._replace(context=context, payload=payload)
        strategy = strategy_of(policy)
        hidden = policy.blocked | {item_id}
        pool = CandidatePool(query.payload)
        ranked_for = RankingContext(
            [item_id] if item_id else [], UserProfile(), policy.seen.repeat, start_us, debias
        )
        ranking = await rank(own_query, strategy, ranked_for, hidden, depth)
        if ranking is not None:
            await pool.fill(own_query, ranking.blocks(), depth)
        elif not item_id:
            fresh = await fresh_items(own_query, depth, hidden)
            await pool.read(own_query, [(one, 0.0) for one in fresh])
        else:
            bare = own_query._replace(payload=NO_PAYLOAD)
            similar = await find_similar_items(bare, [item_id], depth, hidden)
            if similar is None:
                return None
            # Hits of a search do not say when their items expire.
            await pool.read(own_query, [(item.id, score) for item, score in similar])
        await add_new(pool, own_query, policy, ranked_for, hidden, depth)
        if brand:
            pool.candidates = spread(pool.candidates, brand)
        if context.failures:
            # An incomplete list must not be served for minutes.
            raise ShardsUnavailable("a shard does not answer, so the list is not cached")
        hits = [pool.hits[candidate.id] for candidate in pool.candidates]
        return CachedList(
            tuple(hit.id for hit in hits),
            tuple(map(wire.recommendation_to_bytes, hits)),
            computed_us=start_us,
            cost_s=time.perf_counter() - start,
            watermark=context.watermark,
            expires_us=to_us(pool.expires) if pool.expires else 0,
            from_content=ranking is None,
            is_live=query.served.trends is not None and (ranking is None or ranking.is_live),
            stale=context.stale,
        )

    return compute


class CachedCandidates(NamedTuple):
    """Candidates from a cache.

    candidates: None if the item does not exist. is_complete: Whether there are no further
    candidates. from_content: Whether the candidates were chosen by their vectors, not ranked by
    behaviour.
    """

    candidates: CachedList | None
    level: CacheLevel
    is_complete: bool
    from_content: bool

    @property
    def watermark(self) -> bytes | None:
        """The changes of items that the list has; None if the item does not exist."""
        return None if self.candidates is None else self.candidates.watermark

    @property
    def stale(self) -> str:
        """Why the list may lack changes; empty if it does not."""
        return "" if self.candidates is None else self.candidates.stale

    def messages(self, hidden: frozenset[str], depth: int) -> list[bytes] | None:
        """Returns the first `depth` candidates that are not hidden, as messages.

        Returns: None if the item does not exist, or too few candidates are left and more exist.
        """
        if self.candidates is None:
            return None
        pairs = zip(self.candidates.ids, self.candidates.messages, strict=True)
        visible = (message for item_id, message in pairs if item_id not in hidden)
        messages = list(islice(visible, depth))
        return messages if len(messages) == depth or self.is_complete else None


class _Variant(NamedTuple):
    # Surfaces with equal policies share their lists.
    policy_digest: str
    payload: frozenset[c.PayloadField]
    depth: int


class _ListSpec(NamedTuple):
    key: ListKey
    query: CandidateQuery
    policy: Policy
    item_id: str
    depth: int
    debias: float | None


class CandidateCache:
    """Reads shared candidates through the caches.

    Args:
        lists: The caches, which this object closes.
        trackers: By collection, the items that changed since its snapshot.
    """

    def __init__(self, lists: TieredCache, trackers: Mapping[str, ChangeTracker]) -> None:
        self._lists = lists
        self._trackers = trackers
        self._variants: dict[str, Counter[_Variant]] = {}
        self._policies: dict[str, Policy] = {}

    def read(
        self,
        query: CandidateQuery,
        policy: Policy,
        item_id: str,
        depth: int,
        debias: float | None = None,
    ) -> Awaitable[CachedCandidates | None]:
        """Starts to read a list; items that were deleted since it was computed are left out.

        A list in this process is available at once. Anything else is read in the background.

        Args:
            query: Which items match, and which of their fields to read.
            policy: The policy of the surface.
            item_id: Item that the list goes with; empty: the surface's list without an item.
            depth: Candidates needed.
            debias: Discount of the request for popularity; None uses the policy's. Without an item,
                nothing is discounted.
        Returns: A future of the list, or of None if it cannot be shared: with vectors, or while
            shards are away.
        """
        served, payload, filter, context = query
        done: asyncio.Future[CachedCandidates | None] = asyncio.get_running_loop().create_future()
        if not payload <= _CACHEABLE:
            done.set_result(None)
            return done
        # With `fresh`, the last of the candidates are new items.
        is_short = depth <= _SHORT // 2 and policy.fresh is None
        list_depth = _SHORT if is_short else policy.candidates
        variant = _Variant(policy.digest, payload, list_depth)
        debias = debias if item_id and debias != policy.popularity_debias else None
        # Only lists without a filter or discount of the request are computed ahead for the next
        # snapshot.
        if filter == policy.only and debias is None:
            self._policies[policy.digest] = policy
            self._variants.setdefault(served.name, Counter())[variant] += 1
        key = _key(served, variant, strategy_of(policy).list_name(item_id), filter, debias)
        spec = _ListSpec(key, query, policy, item_id, list_depth, debias)
        local = self._lists.get_local(
            key, self._computation(spec, context.min_watermark), context.min_watermark
        )
        if local is not None:
            found, newer = self._validated(spec, *local)
            if newer is None:
                done.set_result(found)
                return done
        return asyncio.create_task(self._get(spec))

    async def _get(self, spec: _ListSpec) -> CachedCandidates | None:
        compute, validate = partial(self._computation, spec), partial(self._validated, spec)
        try:
            return await self._lists.get_validated(
                spec.key, compute, spec.query.context.min_watermark, validate
            )
        except NearlineError as error:
            if error.peer_died:
                # The computation may be the cause, so it is not repeated.
                raise
            return None

    def _validated(
        self, spec: _ListSpec, cached: CachedList | None, level: CacheLevel
    ) -> tuple[CachedCandidates, Watermark | None]:
        """Returns a list with later changes applied, and the state it needs if it is too old."""
        served, item_id = spec.query.served, spec.item_id
        # Of an item that does not exist, nothing is known by behaviour.
        from_content = cached is None or cached.from_content
        is_complete, newer = cached is None or len(cached.ids) < spec.depth, None
        tracker = self._trackers.get(served.name)
        if tracker is not None:
            cached, newer = tracker.read(cached, item_id if from_content else "")
        return CachedCandidates(cached, level, is_complete, from_content), newer

    def _computation(self, spec: _ListSpec, least: Watermark | None) -> ComputeList:
        visible = spec.query.context.visible
        query = spec.query._replace(context=RequestContext(None, least, visible))
        return list_computation(query, spec.policy, spec.item_id, spec.depth, spec.debias)

    async def prewarm(self, served: ServedCollection, limit: int) -> int:
        """Computes the most requested lists for a snapshot that will be served next.

        Returns: Number of lists that are ready.
        """
        return await self._lists.prewarm(self._most_requested(served, limit))

    async def close(self) -> None:
        """Cancels computations and closes the caches."""
        await self._lists.close()

    def _most_requested(
        self, served: ServedCollection, limit: int
    ) -> Iterator[tuple[ListKey, ComputeList]]:
        variants = [one for one, _ in self._variants.get(served.name, Counter()).most_common()]
        for name in self._lists.most_requested(served.name, limit):
            item_id = item_of_list(name)
            for variant in islice(self._variants_of(name, item_id, variants), _MAX_VARIANTS):
                policy = self._policies[variant.policy_digest]
                query = CandidateQuery(served, variant.payload, policy.only, RequestContext())
                compute = list_computation(query, policy, item_id, variant.depth)
                yield _key(served, variant, name, policy.only), compute

    def _variants_of(
        self, name: str, item_id: str, variants: Sequence[_Variant]
    ) -> Iterator[_Variant]:
        """Returns the variants whose surfaces request a list of this name."""
        return (
            one
            for one in variants
            if strategy_of(self._policies[one.policy_digest]).list_name(item_id) == name
        )


@lru_cache(64)
def _names(payload: frozenset[c.PayloadField]) -> str:
    return ",".join(sorted(field.value for field in payload))


def _key(
    served: ServedCollection,
    variant: _Variant,
    name: str,
    filter: c.Filter | None,
    debias: float | None = None,
) -> ListKey:
    policy_digest, payload, depth = variant
    shown = f"{_names(payload)}/{depth}"
    if debias is not None:
        shown += f"/{float(debias)!r}"
    return ListKey(
        served.name, served.snapshot_id, policy_digest, filter_digest(filter), shown, name
    )
