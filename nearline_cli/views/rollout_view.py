"""Status of a rollout, as printed by commands."""

from __future__ import annotations

from google.protobuf import json_format

from nearline.v1 import admin_pb2, snapshot_pb2, types_pb2
from nearline_cli.terminal import output

_ARMS = {types_pb2.ARM_CURRENT: "current", types_pb2.ARM_CANARY: "canary"}
_FIELDS = (
    *("requests", "errors", "units", "p50_ms", "p99_ms", "recall_samples", "recall", "lists"),
    *("clicks", "conversions"),
)


def canary_record(collection: str, record: snapshot_pb2.AliasRecord) -> dict[str, object]:
    """Returns what an alias record says of a canary, as a JSON object."""
    return {
        "collection": collection,
        "epoch": record.epoch,
        "current": record.current,
        "canary": record.canary or None,
        "canary_share": record.canary_share,
    }


def canary_name(record: snapshot_pb2.AliasRecord) -> str:
    """Returns the canary that a record names, in words."""
    return f"{record.current} with other policies" if record.rollout.policies else record.canary


def show_status(
    collection: str, status: admin_pb2.GetRolloutStatusResponse, *, as_json: bool
) -> None:
    """Prints the status of a rollout."""
    record = status.in_force
    if as_json:
        output.print_json(
            {
                **canary_record(collection, record),
                "running": status.running,
                "problem": status.problem,
                "why": record.why,
                "arms": {
                    _ARMS[arm.arm]: {
                        "snapshot": arm.snapshot_id,
                        **{name: getattr(arm, name) for name in _FIELDS},
                    }
                    for arm in status.arms
                },
                "tests": {
                    test.name: {"evidence": test.evidence, "limit": test.limit, "seen": test.seen}
                    for test in status.tests
                },
                "verdicts": [
                    json_format.MessageToDict(one, preserving_proto_field_name=True)
                    for one in status.verdicts
                ],
                "compared": status.compared,
                "overlap": status.overlap if status.compared else None,
                "proposed": status.proposed_snapshot_id or None,
                "proposed_because": status.proposal_reason or None,
            }
        )
        return
    console = output.console()
    if not record.canary:
        console.print(
            f"no rollout: {record.current} answers all requests since epoch {record.epoch}"
        )
        if record.why:
            console.print(f"reason: {record.why}")
        if status.proposed_snapshot_id:
            console.print(
                f"upkeep proposes {status.proposed_snapshot_id}: {status.proposal_reason}; serve "
                f"it with nearline snapshots promote {status.proposed_snapshot_id}"
            )
        return
    console.print(
        f"{canary_name(record)} answers {record.canary_share:.1%} of requests since epoch "
        f"{record.epoch}"
    )
    if not status.running:
        console.print(f"not running at this router: {status.problem}")
        return
    output.print_table(
        ("arm", "snapshot", *(name.replace("_", " ") for name in _FIELDS)),
        [
            (_ARMS[arm.arm], arm.snapshot_id, *(_number(getattr(arm, name)) for name in _FIELDS))
            for arm in status.arms
        ],
    )
    output.print_table(
        ("test", "evidence", "aborts at", "samples"),
        [(t.name, f"{t.evidence:.3g}", f"{t.limit:.3g}", t.seen) for t in status.tests],
    )
    output.print_table(
        ("canary by", "verdict", "evidence", "decides at", "further lists", "held back by"),
        [
            (
                *(v.rate, v.verdict, f"{v.evidence:.3g}", f"{v.limit:.3g}"),
                f"about {v.lists_needed:,}" if v.HasField("lists_needed") else "unknown",
                f"{v.held_back} ({v.tenant})" if v.tenant else v.held_back,
            )
            for v in status.verdicts
        ],
    )
    if status.compared:
        console.print(f"{status.compared:,} replies compared: {status.overlap:.1%} overlap")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
