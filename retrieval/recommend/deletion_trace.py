"""Finds the snapshots whose models still contain a trace of a deleted user."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import Store, shard_of
from retrieval.behaviour.tables import read_users


def influenced_snapshots(store: Store, collection: str, user_id: str) -> list[c.Influence]:
    """Returns the snapshots that were trained on a user's interactions, newest first.

    One that cannot be read may have been. This call blocks.

    Raises: StoreError: the store cannot be read.
    """
    try:
        current = store.alias_in_force(collection).current
    except NotFound:
        current = ""
    influenced: list[c.Influence] = []
    for snapshot_id in store.snapshot_ids(collection):
        try:
            manifest = store.manifest(collection, snapshot_id)
            learned = manifest.HasField("behaviour") and user_id in read_users(
                store, manifest, [shard_of(user_id, max(1, len(manifest.shards)))]
            )
        except NotFound:
            continue  # Pruned meanwhile.
        except (SnapshotCorrupt, SnapshotMismatch):
            learned = True  # It may have been.
        if learned:
            influenced.append(c.Influence(snapshot_id, snapshot_id == current))
    return influenced
