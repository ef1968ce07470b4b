"""The results of the trial of a canary, as a message."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nearline.access.method_guard import current_caller
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
        figures: dict[str, Any] = asdict(state)
        del figures["p95_ms"]
        reply.arms.add(arm=arm, snapshot_id=snapshot_id, **figures)
    for test in trial.analysis.tests():
        reply.tests.add(name=test.name, evidence=test.evidence, limit=test.limit, seen=test.seen)
    for one in trial.analysis.verdicts():
        if not current_caller().names_tenants:
            one.ClearField("tenant")
        reply.verdicts.append(one)
    reply.compared = trial.overlap.requests
    reply.overlap = trial.overlap.mean
