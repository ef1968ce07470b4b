"""Check of the hot cache: how many lists would be ready before the flip."""

from __future__ import annotations

import numpy as np

from index_builder.releases.comparison import OFF, Comparison
from index_builder.releases.gate_report import Check, make_check, skip_check
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

# As many as a router keeps by default, and gets ready for the next snapshot.
_LISTS = 10_000
_LEAST = 20


async def check_warm(seen: Comparison, policies: Policies | None = None) -> Check:
    """Plays a flip: a router that was asked for all recorded lists gets ready for the candidate
    what it would, then is asked for them again.

    Lists of users and sessions are left out: they are made for each.
    """
    limit, live = seen.limits.min_warm_ratio, seen.live
    if limit < 0:
        return skip_check("warm", OFF)
    if live is None:
        return skip_check("warm", seen.alone)
    probes = [one for one in seen.probes if one.audience is not None and not one.personal]
    if len(probes) < _LEAST:
        return skip_check(
            "warm",
            f"{len(probes)} lists that are the same for everybody were recorded, {_LEAST} are "
            "needed; routers record a share of the requests (record_share)",
        )
    policies = policies or default_policies()
    hot = CandidateCache(TieredCache(None, capacity=_LISTS), {})
    # Asked twice of the candidate, a list is warm anyway: the first time counts for all.
    is_warm: dict[tuple[object, ...], bool] = {}
    try:
        kept = [one for one in probes if await _level(live, hot, one, policies) is not None]
        await hot.prewarm(seen.candidate.served, _LISTS)
        for probe in kept:
            if _name(probe) not in is_warm:
                level = await _level(seen.candidate, hot, probe, policies)
                is_warm[_name(probe)] = level not in (None, CacheLevel.LIVE)
    finally:
        await hot.close()
    counted = [is_warm[_name(probe)] for probe in kept]
    if not counted:
        return skip_check("warm", "no recorded list is one that is kept ready")
    ratio = sum(counted) / len(counted)
    found = f"{ratio:.0%} of {len(counted)} recorded lists would be ready before the flip"
    remedy = (
        "after the flip the others are made again, which is slow for minutes: look for items that "
        "are gone or have other ids, or promote when little is asked"
    )
    return make_check("warm", ratio >= limit, found, remedy, ratio, limit)


def _name(probe: Probe) -> tuple[object, ...]:
    assert probe.audience is not None
    return (probe.audience, probe.list_options.n, repr(probe.list_options.filter))


async def _level(
    snapshot: LoadedSnapshot, hot: CandidateCache, probe: Probe, policies: Policies
) -> CacheLevel | None:
    """Asks for a list by way of the caches; gives where it came from.

    None: no cache has such lists, there is no such item, or it is refused.
    """
    assert probe.audience is not None
    try:
        policy = policies.for_surface(probe.audience.surface)
        order = ListRequest(audience=probe.audience, options=probe.list_options, policy=policy)
        rng = np.random.default_rng(0)
        builder = ListBuilder(snapshot.served, order, RequestContext(), hot, rng)
        builder.prefetch()
        built = await builder.build(UserProfile())
    except NearlineError:
        return None
    return None if built.cached is None else built.cached.level
