"""Publication of the folder of a snapshot: written apart, and moved to its place as a whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from nearline.store.durable import store_errors, write_durably
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import MANIFEST, Store
from nearline.v1 import snapshot_pb2

_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def temporary_snapshot(store: Store, collection: str, snapshot_id: str) -> Iterator[Path]:
    """Creates the folder to write a snapshot in; removes it after the block unless published."""
    folder = store.snapshots_folder(collection) / f"{_TEMPORARY}{snapshot_id}"
    remove_temporary(store, collection, snapshot_id)
    with store_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_temporary(store: Store, collection: str, snapshot_id: str) -> None:
    """Removes the unfinished snapshot of a killed build."""
    folder = store.snapshots_folder(collection) / f"{_TEMPORARY}{snapshot_id}"
    shutil.rmtree(folder, ignore_errors=True)
    if snapshot_id not in store.snapshot_ids(collection):
        store.remove_snapshot(collection, snapshot_id)  # Uploaded in part.


def publish(store: Store, folder: Path, manifest: snapshot_pb2.Manifest) -> Path:
    """Writes the manifest, forces everything to disk and gives the folder its final name.

    Returns: The snapshot's folder.
    Raises: StoreError.
    """
    with store_errors(folder):
        write_durably(folder / MANIFEST, message_to_json(manifest).encode())
    return store.publish(folder, manifest.collection, manifest.snapshot_id)
