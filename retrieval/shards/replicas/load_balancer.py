"""Chooses the replica that a call goes to."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TypeVar

from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.replica import Peer, Replica

_P = TypeVar("_P", bound=Peer)


def choose_replica(
    replicas: Sequence[Replica[_P]],
    key: ShardKey,
    now: float,
    *,
    tried: Collection[Replica[_P]] = (),
) -> Replica[_P] | None:
    """Returns the less loaded of two random replicas; None if no replica can be called.

    Ejected replicas, and replicas that cannot read the change log and so may be stale, are used
    only if no better replica is left, so neither state alone makes a shard unavailable. Replicas
    that are away are never used.

    Args:
        replicas: All replicas of the shard.
        key: Shard that the replica must hold.
        now: Time of `time.monotonic`.
        tried: Replicas that were called already.
    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001; the load
        is latency times calls outstanding, as in Finagle.
    """
    candidates = [one for one in replicas if one.holds(key) and one not in tried]
    candidates = [one for one in candidates if one.health.admits(now, one.in_flight)] or candidates
    candidates = [one for one in candidates if not one.stale(key)] or candidates
    if len(candidates) > 2:
        candidates = random.sample(candidates, 2)
    return min(candidates, key=lambda one: one.load(now), default=None)
