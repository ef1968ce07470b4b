"""Keeps the lists of users who come back, as long as nothing that they depend on has changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nearline import contract as c, wire
from retrieval.cache.cached_list import CachedList, CacheLevel
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.cache.local_cache import BoundedCache
from retrieval.recommend.cached_candidates import CachedCandidates
from retrieval.recommend.list_builder import BuiltList, ListRequest
from retrieval.recommend.policies import filter_digest
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from retrieval.users.records import StoredState

# A list of 20 titles takes about 3 kB.
_CAPACITY = 10_000
# Shares of `fresh` and repurchases depend on the time of a request, but not to the minute.
_KEEP_S = 60.0


class ListSpec(NamedTuple):
    """Everything that a personal list depends on, apart from the state of the user."""

    collection: str
    snapshot_id: str
    policy_digest: str
    user_id: str
    session_id: str
    n: int
    payload: frozenset[c.PayloadField]
    filter_digest: str
    exclude_ids: tuple[str, ...]
    diversity: float | None
    debias: float | None


def list_spec(served: ServedCollection, request: ListRequest) -> ListSpec | None:
    """Returns what a list depends on; None if it must not be kept.

    Lists that go with items have a cache of their own, explored lists are drawn anew, and
    explanations and watermarks ask for the present.
    """
    audience, options, policy = request.audience, request.options, request.policy
    if not (audience.user_id or audience.session_id) or audience.item_ids:
        return None
    if options.explain or options.why_not_id or options.min_watermark or policy.explore:
        return None
    return ListSpec(
        served.name,
        served.snapshot_id,
        policy.digest,
        audience.user_id,
        audience.session_id,
        options.n,
        options.payload,
        filter_digest(options.filter),
        tuple(options.exclude_ids),
        options.diversity,
        options.popularity_debias,
    )


class _KeptList(NamedTuple):
    state: StoredState
    cached: CachedList
    source: str


class PersonalLists:
    """Lists of users by everything that they depend on.

    Args:
        trackers: By collection, the items that changed since its snapshot.
        capacity: Largest number of lists.
    """

    def __init__(self, trackers: Mapping[str, ChangeTracker], capacity: int = _CAPACITY) -> None:
        self._trackers = trackers
        self._lists: BoundedCache[ListSpec, _KeptList] = BoundedCache(capacity, _KEEP_S)

    def holds(self, spec: ListSpec) -> bool:
        """Returns whether there is a list, which may no longer be valid."""
        return self._lists.get(spec) is not None

    def get(self, spec: ListSpec, state: StoredState) -> BuiltList | None:
        """Returns the list, unless the user or one of its items has changed.

        Args:
            state: The state of the user and the session now.
        """
        kept = self._lists.get(spec)
        if kept is None or kept.state != state:
            return None
        cached = kept.cached
        if cached.expires_us and cached.expires_us <= time.time_ns() // 1_000:
            return None
        tracker = self._trackers.get(spec.collection)
        if tracker is not None:
            current, newer = tracker.read(cached)
            if newer is not None or current is None or len(current.ids) < len(cached.ids):
                return None
        return BuiltList(
            recommendations=wire.lazy_recommendations(cached.messages),
            ignored=(),
            source=kept.source,
            cached=CachedCandidates(cached, CacheLevel.NEAR, True, False),
        )

    def put(
        self,
        spec: ListSpec,
        state: StoredState,
        built: BuiltList,
        context: RequestContext,
        started_us: int,
    ) -> BuiltList:
        """Keeps a list that was built for a state, unless a part of it is missing.

        Returns: The same list, encoded once for this reply and the next.
        """
        if built.cached is not None or built.ignored or not context.complete:
            return built
        hits: Sequence[c.Hit] = [one.hit for one in built.recommendations]
        messages = tuple(map(wire.recommendation_to_bytes, hits))
        cached = CachedList(
            tuple(hit.id for hit in hits),
            messages,
            computed_us=started_us,
            cost_s=0.0,
            watermark=context.watermark,
            expires_us=built.expires_us,
        )
        self._lists.put(spec, _KeptList(state, cached, built.source))
        return built.with_messages(messages)

    def close(self) -> None:
        """Drops all lists."""
        self._lists.close()
