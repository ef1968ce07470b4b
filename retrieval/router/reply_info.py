"""Builds the metadata of replies: snapshot, coverage, source, watermark, list id and timings."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace

from nearline import contract as c
from retrieval.protocols import metrics
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


class ReplyInfoBuilder:
    """Builds `ReplyInfo` records and assigns list ids.

    Args:
        collections: The collections served, with running trials.
    """

    def __init__(self, collections: ServedCollections) -> None:
        self._trials = collections.trials
        # A process-wide prefix and a counter: unique like a UUID, at a fraction of the cost.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()

    def info(
        self,
        collection: ServedCollection,
        context: RequestContext,
        *,
        total_s: float,
        search_s: float | None = None,
        embed_s: float | None = None,
        listed: bool = True,
        surface: str = "",
        served_by: c.ServedBy | None = None,
        watermark: bytes | None = None,
    ) -> c.ReplyInfo:
        """Returns the info of an answer.

        Args:
            listed: Whether the answer lists items and so needs a list id.
            surface: Surface of a recommended list; empty for any other answer.
            served_by: Source of the answer; None means the shards.
            watermark: Progress of live changes in the answer; None uses that of the shards.
        """
        if context.failures:
            metrics.partial_answers.labels(collection.name).inc()
        arm = None
        list_id = f"{self._prefix}-{next(self._numbers):x}" if listed else ""
        trial = self._trials.get(collection.name)
        if trial is not None and trial.covers(surface):
            is_canary = trial.is_canary(collection)
            arm = c.Arm.CANARY if is_canary else c.Arm.CURRENT
            if listed and not trial.split.shadow:
                list_id = trial.split.mark_list_id(list_id, arm)
                trial.analysis.record_list(is_canary)
        return c.ReplyInfo(
            epoch=collection.epoch,
            snapshot_id=collection.snapshot_id,
            fingerprint=collection.fingerprint,
            coverage=collection.coverage(context.failures),
            served_by=_merge_sources(served_by, context.served_by),
            watermark=context.watermark if watermark is None else watermark,
            list_id=list_id,
            embed_s=embed_s,
            search_s=search_s,
            total_s=total_s,
            arm=arm,
            cost=context.cost,
        )


def _merge_sources(own: c.ServedBy | None, shards: c.ServedBy) -> c.ServedBy:
    """Merges the source that a service reports with that of its shards; fallbacks take priority."""
    if own is None or (not own.rung and own.source is c.Source.LIVE):
        return shards
    if not shards.rung:
        return own
    reason = "; ".join(filter(None, (own.reason, shards.reason)))
    return replace(own, source=shards.source, rung=own.rung or shards.rung, reason=reason)
