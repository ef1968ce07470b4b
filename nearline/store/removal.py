"""Removal of a collection from a store.

Its newest alias record says that it was dropped, and stays: a process that was away learns of it,
and the numbers of records go on where they were. The removal is unfinished while there are older
records.
"""

from __future__ import annotations

from nearline.errors import Conflict
from nearline.store.snapshot import ALIASES, MANIFEST, Store
from nearline.v1 import snapshot_pb2


def has_records(store: Store, collection: str) -> bool:
    """Returns whether the store has an alias record of a collection, dropped or not."""
    return bool(_records(store, collection))


def is_unfinished(store: Store, collection: str) -> bool:
    """Returns whether files of a collection that was dropped may be left."""
    return len(_records(store, collection)) > 1


def remove_files(store: Store, collection: str, dropped: snapshot_pb2.AliasRecord) -> int:
    """Removes the files of a dropped collection but its records; blocks, and may be repeated.

    Args:
        dropped: The record that says so; whoever wrote it may remove the files.
    Returns: Number of removed snapshots.
    Raises: StoreError. Conflict: a newer record exists.
    """
    snapshots = [*store.snapshot_ids(collection), *store.unfinished_ids(collection)]
    for snapshot_id in snapshots:
        _check_newest(store, collection, dropped)
        store.remove_snapshot(collection, snapshot_id)
    for name in store.files.names(collection):
        if name != ALIASES:
            _check_newest(store, collection, dropped)
            store.files.remove_file(f"{collection}/{name}")
            store.files.remove(f"{collection}/{name}", MANIFEST)
    return len(snapshots)


def remove_older_records(store: Store, collection: str, dropped: snapshot_pb2.AliasRecord) -> None:
    """Ends the removal, once nothing else is left: the name is free then. Blocks.

    Raises: StoreError.
    """
    for name in _records(store, collection):
        if name < f"{dropped.epoch:010d}":
            store.files.remove_file(f"{collection}/{ALIASES}/{name}")


def _check_newest(store: Store, collection: str, dropped: snapshot_pb2.AliasRecord) -> None:
    newest = store.newest_alias_record(collection)
    if newest is None or newest.epoch != dropped.epoch:
        raise Conflict(f"another process drops {collection!r} too, or has created it again")


def _records(store: Store, collection: str) -> list[str]:
    return store.files.names(f"{collection}/{ALIASES}")
