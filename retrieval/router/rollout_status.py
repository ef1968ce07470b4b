"""The results of the trial of a canary, as a message."""

from __future__ import annotations

from nearline.v1 import admin_pb2, types_pb2
from retrieval.rollout.trial import Trial


def fill_rollout_status(reply: admin_pb2.GetRolloutStatusResponse, trial: Trial) -> None:
    """Adds the results of a trial on this router to a reply."""
    split = trial.split
    reply.running = True
    current, canary = trial.analysis.arms()
    for arm, snapshot_id, state in (
        (types_pb2.ARM_CURRENT, split.current, current),
        (types_pb2.ARM_CANARY, split.canary, canary),
    ):
        reply.arms.add(
            arm=arm,
            snapshot_id=snapshot_id,
            requests=state.requests,
            errors=state.errors,
            units=state.units,
            p50_ms=state.p50_ms,
            p99_ms=state.p99_ms,
            recall_samples=state.recall_samples,
            recall=state.recall,
            lists=state.lists,
            clicks=state.clicks,
            conversions=state.conversions,
        )
    for test in trial.analysis.tests():
        reply.tests.add(name=test.name, evidence=test.evidence, limit=test.limit, seen=test.seen)
    reply.compared = trial.overlap.requests
    reply.overlap = trial.overlap.mean
