"""Checks how much of the list cache would be warm before a router switches to a snapshot."""

from __future__ import annotations

import numpy as np

from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, SkippedCheck, make_check
from index_builder.releases.probes import Probe
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline.errors import NearlineError
from retrieval.cache.cached_list import CacheLevel
from retrieval.cache.tiered_cache import TieredCache
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.list_builder import ListBuilder, ListRequest
from retrieval.recommend.policies import Policies, default_policies
from retrieval.recommend.user_profile import UserProfile
from retrieval.search.request_context import RequestContext

# The default capacity of a router, which prewarms this many lists.
_CACHE_LISTS = 10_000
_MIN_LISTS = 20


async def check_warm(comparison: Comparison) -> Check:
    """Simulates a switch: requests all recorded lists, prewarms for the candidate, requests them
    again.

    Lists of users and sessions are excluded, because they are built individually.
    """
    limit = comparison.limits.min_warm_ratio
    live = comparison.require_live(limit)
    probes = [one for one in comparison.probes if one.audience is not None and not one.personal]
    if len(probes) < _MIN_LISTS:
        raise SkippedCheck(
            f"only {len(probes)} non-personal lists were recorded, but {_MIN_LISTS} are needed; "
            "routers record a share of the requests (record_share)",
        )
    policies = comparison.policies or default_policies()
    cache = CandidateCache(TieredCache(None, capacity=_CACHE_LISTS), {})
    # The first request decides: the candidate caches a list once it was requested.
    is_warm: dict[tuple[object, ...], bool] = {}
    try:
        cached = [
            one for one in probes if await _cache_level(live, cache, one, policies) is not None
        ]
        await cache.prewarm(comparison.candidate.served, _CACHE_LISTS)
        for probe in cached:
            if _list_key(probe) not in is_warm:
                level = await _cache_level(comparison.candidate, cache, probe, policies)
                is_warm[_list_key(probe)] = level not in (None, CacheLevel.LIVE)
    finally:
        await cache.close()
    counted = [is_warm[_list_key(probe)] for probe in cached]
    if not counted:
        raise SkippedCheck("no recorded list is one that is cached")
    ratio = sum(counted) / len(counted)
    found = f"{ratio:.0%} of {len(counted)} recorded lists would be warm before the flip"
    remedy = (
        "the others are rebuilt after the flip, which is slow for minutes: look for items that are "
        "missing or have other ids, or promote when traffic is low"
    )
    return make_check("warm", ratio >= limit, found, remedy, ratio, limit)


def _list_key(probe: Probe) -> tuple[object, ...]:
    assert probe.audience is not None
    return (probe.audience, probe.list_options.n, repr(probe.list_options.filter))


async def _cache_level(
    snapshot: LoadedSnapshot, cache: CandidateCache, probe: Probe, policies: Policies
) -> CacheLevel | None:
    """Requests a list through the caches; returns the level that served it.

    Returns None if such lists are not cached, the item does not exist, or the request is refused.
    """
    assert probe.audience is not None
    try:
        policy = policies.for_surface(probe.audience.surface)
        order = ListRequest(audience=probe.audience, options=probe.list_options, policy=policy)
        rng = np.random.default_rng(0)
        builder = ListBuilder(snapshot.served, order, RequestContext(), cache, rng)
        builder.prefetch()
        built = await builder.build(UserProfile())
    except NearlineError:
        return None
    return None if built.cached is None or built.ignored else built.cached.level
