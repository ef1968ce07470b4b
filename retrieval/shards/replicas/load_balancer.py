"""Which replica to ask."""

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
    """Returns the less loaded of two replicas taken at random; None where there is none to ask.

    A replica that is ejected is asked where no better one is left, so that ejection alone never
    takes a shard down; one that is away is not. The same goes for one whose live changes are behind
    for want of the change log.

    Args:
        replicas: All of the shard.
        key: What it must hold.
        now: Time of `time.monotonic`.
        tried: Those that were asked already.
    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001; the load
        is latency times calls outstanding, as in Finagle.
    """
    able = [one for one in replicas if one.holds(key) and one not in tried]
    fit = [one for one in able if one.health.admits(now, one.in_flight)] or able
    fit = [one for one in fit if not one.stale(key)] or fit
    if len(fit) > 2:
        fit = random.sample(fit, 2)
    return min(fit, key=lambda one: one.load(now), default=None)
