"""What replies of the router report about themselves."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace

from nearline import contract as c
from retrieval.protocols import metrics
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import mark_list_id
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


class ReplyInfoBuilder:
    """Makes what a reply reports about itself, and names lists.

    Args:
        collections: Knows which snapshots are being tried.
    """

    def __init__(self, collections: ServedCollections) -> None:
        self._trials = collections.trials
        # A process-wide prefix and a counter: unique like a UUID, at a fraction of its cost.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()

    def info(
        self,
        served: ServedCollection,
        inquiry: RequestContext,
        *,
        total_s: float,
        search_s: float | None = None,
        embed_s: float | None = None,
        listed: bool = True,
        served_by: c.ServedBy | None = None,
        watermark: bytes | None = None,
    ) -> c.ReplyInfo:
        """Reports on an answer.

        Args:
            listed: Whether items were listed, so that the list needs a name.
            served_by: Where it came from; None: all of it from the shards.
            watermark: How far live changes are in it; None: as far as the shards said.
        """
        if inquiry.failures:
            metrics.partial_answers.labels(served.name).inc()
        arm = None
        list_id = f"{self._prefix}-{next(self._numbers):x}" if listed else ""
        trial = self._trials.get(served.name)
        if trial is not None:
            tried = served.snapshot_id == trial.split.canary
            arm = c.Arm.CANARY if tried else c.Arm.CURRENT
            if listed and not trial.split.shadow:
                list_id = mark_list_id(list_id, trial.split.epoch, arm)
                trial.judge.listed(tried)
        return c.ReplyInfo(
            epoch=served.epoch,
            snapshot_id=served.snapshot_id,
            fingerprint=served.fingerprint,
            coverage=served.coverage(inquiry.failures),
            served_by=_joined(served_by, inquiry.served_by),
            watermark=inquiry.watermark if watermark is None else watermark,
            list_id=list_id,
            embed_s=embed_s,
            search_s=search_s,
            total_s=total_s,
            arm=arm,
        )


def _joined(own: c.ServedBy | None, shards: c.ServedBy) -> c.ServedBy:
    """Says both what a service fell back to and what its shards did; a fallback counts most."""
    if own is None or (not own.rung and own.source is c.Source.LIVE):
        return shards
    if not shards.rung:
        return own
    reason = "; ".join(filter(None, (own.reason, shards.reason)))
    return replace(own, source=shards.source, rung=own.rung or shards.rung, reason=reason)
