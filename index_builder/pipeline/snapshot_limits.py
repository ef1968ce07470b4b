"""Limits of the snapshots that upkeep keeps: one that nobody needs holds up the change log."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from index_builder.pipeline.compaction import read_current_manifest
from nearline.errors import NotFound, SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.snapshots import retention


class SnapshotLimits(NamedTuple):
    """Snapshots that upkeep keeps, besides those that `retention.plan_prune` keeps.

    compacted: Number of the newest that a compaction made redundant. builds: Number of the newest
    others. age: No younger one is removed.
    """

    compacted: int
    builds: int
    age: timedelta = retention.MIN_AGE


def prune_snapshots(store: Store, collection: str, limits: SnapshotLimits) -> list[str]:
    """Removes the snapshots above the limits, and the remains of killed builds.

    Changes that only removed snapshots lacked can then be removed from the log and its archive.

    Returns: Names of what was removed, newest first.
    Raises: NotFound: nothing is published.
    """
    known = set(store.snapshot_ids(collection))
    redundant = _made_redundant(store, collection, known)
    spare = {True: limits.compacted, False: limits.builds}
    planned = []
    for one in retention.plan_prune(store, collection, 0, min_age=limits.age):
        by_compaction = one.name in redundant
        if not one.kept and one.name in known and spare[by_compaction] > 0:
            spare[by_compaction] -= 1
            one = replace(one, kept="one of the newest")
        planned.append(one)
    retention.prune(store, collection, planned)
    return [one.name for one in planned if not one.kept]


def _made_redundant(store: Store, collection: str, known: set[str]) -> set[str]:
    """Returns the snapshots that the current one was compacted from, back to the last import."""
    redundant: set[str] = set()
    child = read_current_manifest(store, collection)
    while child.parent_snapshot_id in known:
        try:
            parent = store.manifest(collection, child.parent_snapshot_id)
        except (NotFound, SnapshotCorrupt):
            break  # Removed since; or damaged, and counts among the others, so that it goes, too.
        if _origins(parent) != _origins(child):
            break
        redundant.add(parent.snapshot_id)
        child = parent
    return redundant


def _origins(manifest: snapshot_pb2.Manifest) -> set[tuple[str, str]]:
    return {(source.uri, source.sha256) for source in manifest.sources}
