"""Snapshots that learned from a user."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import NotFound
from nearline.snapshot import Store
from retrieval.behaviour.model import load_behaviour_model
from retrieval.protocols.snapshot import read_snapshot_ref


def find_influenced_snapshots(store: Store, collection: str, user_id: str) -> list[c.Influence]:
    """Lists the snapshots in the store that learned from a user, newest first; blocks.

    Raises: SnapshotCorrupt, SnapshotMismatch, StoreError: one of them cannot be read.
    """
    try:
        current = store.alias_in_force(collection).current
    except NotFound:
        current = ""
    found = []
    for snapshot_id in store.snapshot_ids(collection):
        try:
            learned = load_behaviour_model(
                store, read_snapshot_ref(store, collection, snapshot_id, 0)
            )
        except NotFound:
            continue  # Pruned meanwhile.
        if learned is not None and learned.history_of(user_id) is not None:
            found.append(c.Influence(snapshot_id, snapshot_id == current))
    return found
