"""Snapshots that upkeep began to build and that are not yet promoted or proposed.

Layout: <store>/<collection>/begun/<snapshot id>; created before the snapshot is written. A killed
upkeep leaves it, so the next one knows that nobody else needs this snapshot. A snapshot that
nobody needs takes space, and holds back the change log.
"""

from __future__ import annotations

from nearline.store.publication import remove_temporary
from nearline.store.snapshot import Store, check_collection
from nearline.store.snapshot_ids import is_snapshot_id
from retrieval.snapshots import retention


def note_begun(store: Store, collection: str, snapshot_id: str) -> None:
    """Notes that upkeep is about to write a snapshot."""
    store.files.create(_path(collection, snapshot_id), b"")


def settle_begun(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes the note on a snapshot that was promoted or proposed."""
    store.files.remove_file(_path(collection, snapshot_id))


def remove_begun(store: Store, collection: str, keep: int = 0) -> None:
    """Removes the snapshots, whole or in part, unless an alias, a proposal or a rollback needs one.

    Args:
        keep: How many of the newest to keep.
    Raises: NotFound: The collection was dropped. StoreError.
    """
    names = filter(is_snapshot_id, store.files.names(_folder(collection)))
    for snapshot_id in sorted(names, reverse=True)[keep:]:
        remove_temporary(store, collection, snapshot_id)
        retention.remove_unused(store, collection, snapshot_id)
        settle_begun(store, collection, snapshot_id)


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/begun"


def _path(collection: str, snapshot_id: str) -> str:
    return f"{_folder(collection)}/{snapshot_id}"
