"""Keeps the lists of users who come back, as long as nothing that they depend on has changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from nearline import contract as c, wire
from retrieval.cache.byte_cache import ByteCache
from retrieval.cache.cached_list import CachedList, CacheLevel
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.recommend.cached_candidates import CachedCandidates
from retrieval.recommend.list_builder import BuiltList, ListRequest
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from retrieval.users.codec import pack_attributes
from retrieval.users.records import StoredState

# A list of 20 titles takes about 5 kB.
_MAX_BYTES = 64 << 20
# Memory of an entry besides ids and messages, and of one item.
_ENTRY_BYTES, _ITEM_BYTES = 1_500, 120
# Shares of `fresh` and repurchases depend on the time of a request, but not to five minutes.
_KEEP_S = 300.0
# Lists that interactions of others may change.
_KEEP_LIVE_US = 2_000_000


class ListSpec(NamedTuple):
    """Everything that a personal list depends on, apart from the state of the user."""

    collection: str
    snapshot_id: str
    policy_digest: str
    user_id: str
    session_id: str
    n: int
    payload: frozenset[c.PayloadField]
    excluded: bytes
    diversity: float | None
    debias: float | None
    context: bytes


def list_spec(served: ServedCollection, request: ListRequest) -> ListSpec | None:
    """Returns what a list depends on; None if it must not be kept.

    Lists that go with items have a cache of their own, explored lists are drawn for each request,
    and explanations and watermarks are about the present. An item that a filter leaves out may
    match after a change, which a list without this item does not show; the items that a caller may
    see are a filter, too.
    """
    audience, options, policy = request.audience, request.options, request.policy
    if not (audience.user_id or audience.session_id) or audience.item_ids:
        return None
    if options.explain or options.why_not_id or options.min_watermark or policy.explore:
        return None
    if options.filter is not None or policy.only is not None:
        return None
    return ListSpec(
        served.name,
        served.snapshot_id,
        policy.digest,
        audience.user_id,
        audience.session_id,
        options.n,
        options.payload,
        _digest(options.exclude_ids),
        options.diversity,
        options.popularity_debias,
        pack_attributes(audience.context),
    )


class _KeptList(NamedTuple):
    state: StoredState
    cached: CachedList
    source: str


class PersonalLists:
    """Lists of users by everything that they depend on.

    Args:
        trackers: By collection, the items that changed since its snapshot.
        max_bytes: Memory of the lists, at most.

    lists: The lists.
    """

    def __init__(self, trackers: Mapping[str, ChangeTracker], max_bytes: int = _MAX_BYTES) -> None:
        self._trackers = trackers
        self.lists: ByteCache[ListSpec, _KeptList] = ByteCache(max_bytes, _KEEP_S)

    def holds(self, spec: ListSpec) -> bool:
        """Returns whether there is a list, which may no longer be valid."""
        return self.lists.get(spec) is not None

    def get(self, spec: ListSpec, state: StoredState) -> BuiltList | None:
        """Returns the list, unless the user or one of its items has changed.

        Args:
            state: The state of the user and the session now.
        """
        kept = self.lists.get(spec)
        if kept is None or kept.state != state:
            return None
        cached = kept.cached
        now_us = time.time_ns() // 1_000
        if cached.expires_us and cached.expires_us <= now_us:
            return None
        if cached.is_live and cached.computed_us + _KEEP_LIVE_US <= now_us:
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
            is_live=built.is_live,
        )
        size = _ENTRY_BYTES + sum(_ITEM_BYTES + len(one) for one in messages)
        size += len(state.user) + len(state.session) + len(state.attributes) + len(spec.context)
        self.lists.put(spec, _KeptList(state, cached, built.source), size)
        return built.with_messages(messages)


def _digest(ids: Sequence[str]) -> bytes:
    """Returns 16 bytes that stand for ids in their order; empty for none."""
    if not ids:
        return b""
    digest = blake2b(digest_size=16)
    for one in ids:
        encoded = one.encode()
        digest.update(len(encoded).to_bytes(4) + encoded)
    return digest.digest()
