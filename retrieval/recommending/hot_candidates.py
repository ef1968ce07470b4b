"""Candidates that are the same for everybody: what goes with an item, and what is popular."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nearline import contract as c
from nearline import wire
from nearline.errors import NearlineError, ShardsUnavailable
from retrieval.behaviour.history import History
from retrieval.behaviour.learned import Learned
from retrieval.hot.lists import HotLists
from retrieval.hot.records import Compute, HotItem, HotKey, HotList, Level
from retrieval.hot.touched import Touched
from retrieval.inquiry import Inquiry
from retrieval.recommending.policies import Policy
from retrieval.recommending.pool import Pool, Reading, allowed_by
from retrieval.recommending.ranking import rank
from retrieval.recommending.subject import NOBODY
from retrieval.served import ServedCollection

POPULAR = "popular"
_ITEM = "item:"
# Several may wait for a list: it has its own time, not that of who asked first.
_COMPUTE_S = 2.0
# Kinds of list of a collection that are got ready for its next snapshot.
_VARIANTS = 4
# Lists that no rule looks further down in are so long: what users had is left out of them.
_SHORT = 64
_CACHED = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})


class Hot(NamedTuple):
    """Candidates from a cache, best first. whole: There are no others, however far one looks."""

    items: Sequence[HotItem]
    level: Level
    watermark: bytes
    whole: bool


class _Variant(NamedTuple):
    # Of a policy: surfaces with equal ones share their lists.
    digest: str
    payload: frozenset[c.PayloadField]
    depth: int


class HotCandidates:
    """Reads such lists through the caches.

    Args:
        hot: The caches; closed with this.
        touched: By collection, knows which items were changed since its snapshot.
    """

    def __init__(self, hot: HotLists, touched: Mapping[str, Touched]) -> None:
        self._hot = hot
        self._touched = touched
        self._variants: dict[str, Counter[_Variant]] = {}
        self._policies: dict[str, Policy] = {}

    async def read(self, reading: Reading, policy: Policy, item: str, enough: int) -> Hot | None:
        """Gives a list, without what was deleted since it was made.

        Args:
            reading: What is wanted of the items, and which.
            policy: Says how far it looks, and what it blocks.
            item: Id of a trained item; empty: what is popular.
            enough: Items that are wanted of it.
        Returns: None where no such list can be had: by vectors, or while shards are away.
        """
        served, payload, filter, inquiry = reading
        if not payload <= _CACHED or served.learned is None:
            return None
        depth = _SHORT if enough <= _SHORT // 2 else policy.candidates
        variant = _Variant(policy.digest, payload, depth)
        if filter is None:
            self._policies[policy.digest] = policy
            self._variants.setdefault(served.name, Counter())[variant] += 1
        key = _key(served, variant, item, filter)
        least = inquiry.least
        touched = self._touched.get(served.name)
        while True:
            anew = reading._replace(inquiry=Inquiry(None, least))
            compute = _computed(anew, policy, item, depth)
            try:
                hot, level = await self._hot.get(key, compute, least)
            except NearlineError:
                return None
            if hot is None:
                return None
            whole = len(hot.items) < depth
            if touched is None:
                return Hot(hot.items, level, hot.watermark, whole)
            read = touched.read(hot)
            # What is computed just now may be changed again; it is not worth another try.
            if read.least is None or level is Level.LIVE:
                return Hot(read.items, level, hot.watermark, whole)
            least = read.least

    async def prewarm(self, served: ServedCollection, most: int) -> int:
        """Gets ready what was asked for most, for a snapshot that is to be served next.

        Returns: How many lists are ready.
        """
        return await self._hot.prewarm(self._wanted(served, most))

    async def close(self) -> None:
        """Ends what is under way."""
        await self._hot.close()

    def _wanted(self, served: ServedCollection, most: int) -> Iterator[tuple[HotKey, Compute]]:
        learned = served.learned
        if learned is None:
            return
        variants = self._variants.get(served.name, Counter()).most_common(_VARIANTS)
        for of in self._hot.popular(served.name, most):
            item = of.removeprefix(_ITEM) if of.startswith(_ITEM) else ""
            if item and not is_trained(learned, item):
                continue
            for variant, _ in variants:
                reading = Reading(served, variant.payload, None, Inquiry())
                policy = self._policies[variant.digest]
                compute = _computed(reading, policy, item, variant.depth)
                yield _key(served, variant, item, None), compute


def is_trained(learned: Learned, item: str) -> bool:
    """Tells whether the snapshot learned something of an item."""
    number = learned.number_of(item)
    return number is not None and bool(learned.trained[number])


def as_given(learned: Learned, items: Sequence[str]) -> History:
    """Gives items that a list is to go with as a history of one moment; only trained ones."""
    numbers = [learned.number_of(one) for one in items if is_trained(learned, one)]
    count = len(numbers)
    return History(
        np.array(numbers, np.int32), np.zeros(count, np.int64), np.ones(count, np.float32)
    )


def _computed(reading: Reading, policy: Policy, item: str, depth: int) -> Compute:
    served = reading.served
    learned = served.learned
    assert learned is not None

    async def compute() -> HotList:
        began, began_us = time.perf_counter(), time.time_ns() // 1_000
        inquiry = Inquiry(asyncio.get_running_loop().time() + _COMPUTE_S, reading.inquiry.least)
        wanted = reading._replace(inquiry=inquiry)
        allowed = await allowed_by(wanted, learned, (*policy.blocked, item))
        ranking = rank(
            learned,
            as_given(learned, [item] if item else []),
            NOBODY,
            repeats=True,
            allowed=allowed,
            first=depth,
        )
        pool = Pool(reading.payload)
        await pool.fill(wanted, learned.ids, ranking.blocks, depth)
        if inquiry.failures:
            # Nobody shall be shown for minutes what is a part.
            raise ShardsUnavailable("a shard does not answer, so the list is not kept")
        hits = [pool.hits[one.id] for one in pool.candidates]
        items = [HotItem(one.id, one.score, one.title, one.text, one.attributes) for one in hits]
        spent_s = time.perf_counter() - began
        return HotList(tuple(items), began_us, spent_s, inquiry.watermark)

    return compute


@lru_cache(64)
def _names(payload: frozenset[c.PayloadField]) -> str:
    return ",".join(sorted(one.value for one in payload))


def _key(served: ServedCollection, variant: _Variant, item: str, filter: c.Filter | None) -> HotKey:
    policy_digest, payload, depth = variant
    digest = ""
    if filter is not None:
        message = wire.filter_to_proto(filter).SerializeToString(deterministic=True)
        digest = hashlib.blake2b(message, digest_size=12).hexdigest()
    shown = f"{_names(payload)}/{depth}"
    of = f"{_ITEM}{item}" if item else POPULAR
    return HotKey(served.name, served.snapshot_id, policy_digest, digest, shown, of)
