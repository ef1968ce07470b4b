"""Finds the snapshots whose models still contain a trace of a deleted user."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import Store, shard_of
from nearline.store.snapshot_ids import is_snapshot_id
from retrieval.behaviour.tables import read_users


def influenced_snapshots(store: Store, collection: str, user_id: str) -> list[c.Influence]:
    """Returns the snapshots that were trained on a user's interactions, newest first.

    One that cannot be read, or that upkeep is building, may have been. This call blocks.

    Raises: StoreError: the store cannot be read.
    """
    try:
        current = store.alias_in_force(collection).current
    except NotFound:
        current = ""
    published = set(store.snapshot_ids(collection))
    begun = filter(is_snapshot_id, store.files.names(f"{collection}/begun"))
    building = sorted(set(begun) - published, reverse=True)
    influenced = [c.Influence(snapshot_id, False) for snapshot_id in building]
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
