"""The gate within a build: asked once the snapshot is published, before it is promoted."""

from __future__ import annotations

import asyncio

from index_builder.options.build_options import Gate
from index_builder.pipeline.build_result import BuildResult
from index_builder.releases.gate import GateOptions, judge
from index_builder.releases.report_store import keep_report, read_report
from nearline.contract import Embedder
from nearline.errors import GateFailed, NotFound
from nearline.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2


def current_snapshot_id(store: Store, collection: str) -> str | None:
    """Returns the snapshot that is current; None: there is none."""
    try:
        return store.alias_in_force(collection).current
    except NotFound:
        return None


def gate_of_build(force_because: str, *, allow_model_change: bool = False) -> Gate:
    """Returns what a build asks before it promotes; the report is kept in the store.

    Args:
        force_because: Why it is promoted whatever the gate says; empty: it is not.
        allow_model_change: Another embedder is wanted.
    """

    async def ask(
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

    return ask


def check_promoted(result: BuildResult, store: Store) -> None:
    """Raises GateFailed where the gate kept a build from being promoted; says what to do."""
    gate = result.gate
    if gate is None or result.epoch is not None:
        return
    found = read_report(store, gate.report)
    told = "".join(f"\n  {name}: {found[name]}" for name in gate.failed)
    raise GateFailed(
        f"snapshot {result.snapshot_id} is built, and the release gate refuses to serve it:{told}\n"
        f"Mend it and build again, or serve it as it is: nearline snapshots promote "
        f"{result.snapshot_id} --force --why REASON (a build does so with --force-promote REASON); "
        f"{gate.report} has the figures"
    )
