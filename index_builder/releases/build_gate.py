"""Runs the gate within a build, after the snapshot is published and before it is promoted."""

from __future__ import annotations

import asyncio

from index_builder.options.build_options import Gate
from index_builder.pipeline.build_result import BuildResult
from index_builder.releases.gate import GateOptions, judge
from index_builder.releases.gate_report import keep_report, read_report
from nearline.contract import Embedder
from nearline.errors import GateFailed, NotFound
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2


def current_snapshot_id(store: Store, collection: str) -> str | None:
    """Returns the id of the current snapshot; None if there is none."""
    try:
        return store.alias_in_force(collection).current
    except NotFound:
        return None


def gate_of_build(force_because: str, *, allow_model_change: bool = False) -> Gate:
    """Returns the gate of a build; its report is kept in the store.

    Args:
        force_because: Reason to promote despite a failed gate; empty to respect it.
        allow_model_change: Whether a change of the embedder is intended.
    """

    async def check(
        store: Store, manifest: snapshot_pb2.Manifest, embedder: Embedder | None
    ) -> release_pb2.GateVerdict:
        options = GateOptions(
            embedders={} if embedder is None else {"the build's": embedder},
            allow_model_change=allow_model_change,
        )
        live = current_snapshot_id(store, manifest.collection)
        report = await judge(store, manifest.collection, manifest.snapshot_id, live, options)
        path = await asyncio.to_thread(keep_report, store, report)
        return report.verdict(path, force_because)

    return check


def check_promoted(result: BuildResult, store: Store) -> None:
    """Raises GateFailed, naming the failed checks, if the gate kept a build from being promoted."""
    if result.gate is not None and result.epoch is None:
        check_passed(result.gate, result.snapshot_id, store)


def check_passed(gate: release_pb2.GateVerdict, snapshot_id: str, store: Store) -> None:
    """Raises GateFailed, naming the failed checks, if the gate refuses a snapshot."""
    if gate.passed or gate.forced_because:
        return
    found = read_report(store, gate.report)
    failures = "".join(f"\n  {name}: {found[name]}" for name in gate.failed)
    raise GateFailed(
        f"snapshot {snapshot_id} is built, but the release gate refuses to serve it:{failures}\n"
        "Fix the cause and build again, or promote it anyway: nearline snapshots promote "
        f"{snapshot_id} --force --why REASON (or build with these); the report is {gate.report}"
    )
