"""Builds one list from one snapshot: candidates, filter, rank, rules, payload, explanations."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from nearline import contract as c, wire
from nearline.errors import ShardsUnavailable
from nearline.filters import both
from nearline.times import to_us
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.reasons import MAX_REASONS
from retrieval.behaviour.segments import segment_names, segments_of
from retrieval.protocols.candidates import CandidatesRequest
from retrieval.protocols.compute_threads import run_stoppable
from retrieval.recommend.brand_spread import ATTRIBUTES, SPARE, brand_attribute, spread
from retrieval.recommend.cached_candidates import CachedCandidates, CandidateCache
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery
from retrieval.recommend.explanations import (
    DEBIASED,
    add_discount,
    complete_absence,
    tell_story,
    unused_rules,
)
from retrieval.recommend.policies import NO_PAYLOAD, Policy
from retrieval.recommend.pool_filler import (
    CONTENT,
    UNORDERED,
    add_new,
    content_examples,
    fill_pool,
    rank,
)
from retrieval.recommend.ranking import ITEMS, ItemRanking, places_gained
from retrieval.recommend.references import bind
from retrieval.recommend.rules import Placement, apply_rules
from retrieval.recommend.strategies import RankingContext, Strategy, strategy_of
from retrieval.recommend.user_profile import UserProfile
from retrieval.search import item_lookup
from retrieval.search.candidates import find_candidates
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """A request for a list, with the policy of its surface, and the attributes of its user."""

    audience: c.Audience
    options: c.RecommendOptions
    policy: Policy
    user: c.Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltList:
    """A list, as `ListBuilder` returns it.

    source: Origin of the candidates: items, history, popular, surface, content or unordered.
    cached: The cached list that it was made from; None if it was computed for this request.
    expires_us: When the first of its candidates expires, microseconds since 1970; 0 if none does.
    is_live: Whether new interactions of others may change it. story: See `tell_story`.
    """

    recommendations: Sequence[c.Recommendation]
    ignored: Sequence[c.IgnoredId]
    source: str
    cached: CachedCandidates | None
    why_not: c.WhyNot | None = None
    expires_us: int = 0
    is_live: bool = False
    story: Sequence[str] = ()

    def with_messages(self, messages: Sequence[bytes]) -> BuiltList:
        """Returns the list with its recommendations encoded already."""
        return replace(self, recommendations=wire.lazy_recommendations(messages))


class ListPlan(NamedTuple):
    """The parts of a request that the stages share, derived from it alone.

    query: How candidates are read, and which items match. item_ids: The item ids of the request,
    each once. context_ids: The same ids if the strategy uses them, else none. excluded: Ids that
    are never listed. depth: Candidates needed. verbatim: Whether a cached list can be returned
    without decoding its items, because no rule or explanation reads them. debias: Discount for
    popularity of the request or the policy; None uses the snapshot's.
    """

    strategy: Strategy
    query: CandidateQuery
    item_ids: Sequence[str]
    context_ids: Sequence[str]
    excluded: frozenset[str]
    depth: int
    verbatim: bool
    debias: float | None


def plan_list(served: ServedCollection, request: ListRequest, context: RequestContext) -> ListPlan:
    """Returns the plan of a request."""
    options, policy, now = request.options, request.policy, request.audience.context
    only = policy.only and bind(policy.only, request.user, now, served.attribute_kinds)
    strategy = strategy_of(policy)
    item_ids = list(dict.fromkeys(request.audience.item_ids))
    needed = policy.needs(options.diversity)
    # Only rules that may prefer lower-ranked items need more candidates than are listed.
    reorders = bool(needed) or policy.explore is not None
    explains = options.explain or bool(options.why_not_id)
    spare = SPARE if options.explain and brand_attribute(served, policy, options.diversity) else 0
    return ListPlan(
        strategy,
        CandidateQuery(served, options.payload | needed, both(options.filter, only), context),
        item_ids,
        item_ids if strategy.uses_items else (),
        frozenset((*options.exclude_ids, *item_ids)),
        max(options.n, policy.candidates) if reorders else options.n + spare,
        not (reorders or explains or policy.pinned),
        policy.popularity_debias
        if options.popularity_debias is None
        else options.popularity_debias,
    )


class _Start(NamedTuple):
    """The state of a list before any candidate is read from the shards.

    context_ids: Items that the list goes with and that exist. ignored: Ids that were left out.
    cached, messages: A cached list and what is left of it for the user; messages is None if the
    candidates have to be read.
    """

    context_ids: Sequence[str]
    ignored: Sequence[c.IgnoredId]
    cached: CachedCandidates | None
    messages: list[bytes] | None


class ListBuilder:
    """Builds one list.

    Args:
        served: The snapshot to read.
        request: The request.
        context: Collects failures and watermarks of the shards.
        cache: Optional; None computes every list.
        rng: Draws explored items.
    """

    def __init__(
        self,
        served: ServedCollection,
        request: ListRequest,
        context: RequestContext,
        cache: CandidateCache | None,
        rng: np.random.Generator,
    ) -> None:
        self._request = request
        self._plan = plan_list(served, request, context)
        only = request.policy.only
        self._refers = only is not None and bind(only, {}, {}, {}) != only
        self._cache = cache
        self._rng = rng
        self._prefetched: Awaitable[CachedCandidates | None] | None = None

    def prefetch(self) -> None:
        """Starts to read a list shared by all known users, while the caller reads the profile."""
        item_ids = self._plan.context_ids
        if self._refers:
            return  # First it must be known which items match.
        if item_ids and self._plan.query.context.visible is not None:
            return  # First it must be known whether the caller may see them.
        if self._plan.strategy.is_shared(item_ids, is_known=True):
            self._prefetched = self._read_cache(item_ids)

    async def build(self, profile: UserProfile) -> BuiltList:
        """Returns the list for a user.

        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter
            names an attribute that does not exist.
        """
        if self._refers and profile.attributes:
            query, request = self._plan.query, replace(self._request, user=profile.attributes)
            self._plan = plan_list(query.served, request, query.context)
        options, policy, plan = self._request.options, self._request.policy, self._plan
        now_us = time.time_ns() // 1_000
        seen = profile.seen(policy, now_us)
        profile = await visible_profile(profile, plan.query.served, plan.query.context)

        learned = plan.query.served.learned
        segments: tuple[int, ...] = ()
        if learned and learned.segments:
            known = {**profile.attributes, **self._request.audience.context}
            segments = segments_of(segment_names(known), learned.segments)
        # Candidates, filtered and ranked, with their payload: from the cache, else from the shards.
        start = await self._start(profile.is_known or bool(segments), seen | plan.excluded)
        if plan.verbatim and start.messages is not None:
            return BuiltList(
                recommendations=wire.lazy_recommendations(start.messages),
                ignored=start.ignored,
                source=self._shared_source(start),
                cached=start.cached,
            )
        repeats = policy.seen.repeat or (policy.seen.by_item and bool(profile.again))
        context = RankingContext(start.context_ids, profile, repeats, now_us, plan.debias, segments)
        pool, pinned = CandidatePool(options.payload), CandidatePool(options.payload)
        brand = brand_attribute(plan.query.served, policy, options.diversity)
        if start.messages is None:
            hidden = seen | plan.excluded | policy.blocked
            query, depth = plan.query, plan.depth
            if brand:
                depth = max(depth, options.n + SPARE)
                query = query._replace(payload=query.payload | ATTRIBUTES)
            source, is_live = await fill_pool(pool, query, plan.strategy, context, hidden, depth)
            await add_new(pool, query, policy, context, hidden, depth)
            if brand:
                pool.candidates = spread(pool.candidates, brand)
        else:
            source, is_live = self._shared_source(start), False
            for message in start.messages:
                pool.add_hit(wire.recommended_hit_from_bytes(message))
        if policy.pinned:
            await pinned.read(plan.query, [(item_id, 0.0) for item_id in policy.pinned])

        # Rules.
        rules = partial(
            apply_rules,
            pool.candidates,
            policy,
            options.n,
            seen=seen,
            excluded=plan.excluded,
            pinned=pinned.candidates,
            diversity=options.diversity,
            now_us=now_us,
            rng=self._rng,
            why_not=options.why_not_id,
        )
        if policy.diversity if options.diversity is None else options.diversity:
            result = await run_stoppable(
                lambda stopped: rules(stopped=stopped), plan.query.context.deadline
            )
        else:
            result = rules()

        # Explanations.
        hits = pinned.hits | pool.hits
        moved: Mapping[str, int] = {}
        why_not = None
        if options.explain or result.why_not is not None:
            ranking = await self._unfiltered(context)
            moved = {} if ranking is None else places_gained(ranking)
            if result.why_not is not None:
                why_not = await complete_absence(
                    result.why_not, plan.query, options.filter, policy, ranking
                )
                why_not = add_discount(why_not, moved.get(why_not.id, 0))
        reasons: Mapping[str, Sequence[str]] = {}
        story: Sequence[str] = ()
        if options.explain:
            ids = () if ranking is None or not brand else ranking.first.ids
            best = [one for one in ids if one in pool.hits][: options.n]
            first = [one.id for one in pool.candidates[: options.n]]
            listed = [one.candidate.id for one in result.places]
            effects = {
                "left out, as the user had them": sorted(seen),
                f"moved down, of one {brand}": [one for one in best if one not in first],
                "moved up by the discount": [one for one in listed if moved.get(one, 0) > 0],
                "moved out by other rules": [one for one in first if one not in listed],
            }
            story = [*tell_story(source, effects), *unused_rules(policy, plan.query.served)]
            live = {} if ranking is None else ranking.reasons
            reasons = await self._reasons(context, result.places, source, moved, live)
        return BuiltList(
            recommendations=[
                c.Recommendation(
                    hit=hits[placement.candidate.id],
                    reasons=reasons.get(placement.candidate.id, ()),
                    propensity=placement.propensity,
                )
                for placement in result.places
            ],
            ignored=start.ignored,
            source=source,
            cached=start.cached,
            why_not=why_not,
            expires_us=_first_expiry(pool, pinned),
            is_live=is_live,
            story=story,
        )

    async def _start(self, is_known: bool, hidden: frozenset[str]) -> _Start:
        """Reads a cached list if there is one; looks up the request's items only if needed."""
        plan, context_ids = self._plan, self._plan.context_ids
        ignored: Sequence[c.IgnoredId] = ()
        cached, messages = None, None
        # Most requests name one item. If the item has a cached list, it exists: read the cache
        # first, unless there are items that the caller may not see.
        exists_if_cached = len(context_ids) == 1 and plan.query.context.visible is None
        if exists_if_cached and (reading := self._shared_list(context_ids, is_known)):
            cached = await reading
            messages = cached.messages(hidden, plan.depth) if cached else None
        if messages is None and plan.item_ids:
            if cached is not None and cached.candidates is None:
                existing: Sequence[str] = ()
                ignored = [c.IgnoredId(one, c.IgnoredReason.NOT_FOUND) for one in plan.item_ids]
            else:
                existing, ignored = await _existing_items(plan)
            context_ids = existing if plan.strategy.uses_items else ()
        if not exists_if_cached or len(context_ids) < len(plan.item_ids):
            if reading := self._shared_list(context_ids, is_known):
                cached = await reading
                messages = cached.messages(hidden, plan.depth) if cached else None
        return _Start(context_ids, ignored, cached if messages is not None else None, messages)

    def _shared_list(
        self, context_ids: Sequence[str], is_known: bool
    ) -> Awaitable[CachedCandidates | None] | None:
        """Returns the shared list of some items, once it is read; None if the list is personal."""
        if not self._plan.strategy.is_shared(context_ids, is_known=is_known):
            return None
        prefetched, self._prefetched = self._prefetched, None
        return prefetched or self._read_cache(context_ids)

    def _read_cache(self, context_ids: Sequence[str]) -> Awaitable[CachedCandidates | None] | None:
        if self._cache is None:
            return None
        item_id = context_ids[0] if context_ids else ""
        plan, request = self._plan, self._request
        debias = request.options.popularity_debias
        return self._cache.read(plan.query, request.policy, item_id, plan.depth, debias)

    def _shared_source(self, start: _Start) -> str:
        if start.cached is not None and start.cached.from_content:
            return CONTENT if start.context_ids else UNORDERED
        return self._plan.strategy.shared_source(start.context_ids[0] if start.context_ids else "")

    async def _reasons(
        self,
        context: RankingContext,
        places: Sequence[Placement],
        source: str,
        moved: Mapping[str, int],
        live: Mapping[str, Sequence[str]],
    ) -> Mapping[str, Sequence[str]]:
        """Returns the reasons of the rules, then those of the strategy, strongest first, by id.

        Args:
            live: Reasons of items that live interactions speak for.
        """
        query, ids = self._plan.query, [placement.candidate.id for placement in places]
        found: Sequence[Sequence[str]] = [()] * len(ids)
        if query.served.learned is not None and ids:
            asked = self._plan.strategy.reasons(context)
            request = CandidatesRequest(
                [asked.generator],
                asked.history,
                0,
                repeats=context.repeats,
                now_us=context.now_us,
                trained_only=asked.trained_only,
                reasons_for=keys_of(ids),
            )
            found = (await find_candidates(query.served, request, query.context)).reasons
        # Similar items also follow those that were visited together.
        is_similar = source == CONTENT or (source == ITEMS and bool(live))
        similar_to = content_examples(context)[:MAX_REASONS] if is_similar else ()
        by_content = tuple(f"because:{item_id}" for item_id in similar_to)
        reasons: dict[str, Sequence[str]] = {}
        for placement, of_item in zip(places, found, strict=True):
            item_id = placement.candidate.id
            if item_id in live:
                # For the model, they are new.
                of_item = live[item_id]
            if of_item:
                debiased = (DEBIASED,) if moved.get(item_id, 0) > 0 else ()
                reasons[item_id] = (*placement.reasons, *of_item, *debiased)
            else:
                # The snapshot does not have the item.
                reasons[item_id] = placement.reasons or by_content
        return reasons

    async def _unfiltered(self, context: RankingContext) -> ItemRanking | None:
        """Returns the ranking before any filter or rule; None if the model cannot rank."""
        query = self._plan.query._replace(filter=None)
        nothing: frozenset[str] = frozenset()
        return await rank(query, self._plan.strategy, context, nothing, self._plan.depth)


def _first_expiry(*pools: CandidatePool) -> int:
    return min((to_us(pool.expires) for pool in pools if pool.expires), default=0)


async def visible_profile(
    profile: UserProfile, served: ServedCollection, context: RequestContext
) -> UserProfile:
    """Returns the interactions with items that the caller may see; no others shape its list.

    Interactions may name any id, and who may read an item may have changed since.
    """
    if context.visible is None or not profile.is_known:
        return profile
    ids = list(profile.item_ids)
    visible: set[str] = set()
    for start in range(0, len(ids), c.MAX_BATCH):
        batch = ids[start : start + c.MAX_BATCH]
        found = await item_lookup.fetch_items(served, batch, NO_PAYLOAD, context)
        visible.update(found.items)
    return profile.restricted_to(visible)


async def _existing_items(plan: ListPlan) -> tuple[Sequence[str], Sequence[c.IgnoredId]]:
    """Returns the items of a request that exist, and those that were left out."""
    served = plan.query.served
    try:
        found = await item_lookup.fetch_items(served, plan.item_ids, NO_PAYLOAD, plan.query.context)
    except ShardsUnavailable:
        # Other shards know what goes with the items.
        return plan.item_ids, ()
    ignored = [
        one
        for one in item_lookup.ignored_ids(served, plan.item_ids, found)
        if one.reason is c.IgnoredReason.NOT_FOUND
    ]
    missing = {one.id for one in ignored}
    return [one for one in plan.item_ids if one not in missing], ignored
