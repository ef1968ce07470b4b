"""References to the snapshots that the aliases of a store name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2

COSINE = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRef:
    """A snapshot with its manifest.

    epoch: Number of the alias record that names it; 0 if no record does.
    """

    collection: str
    epoch: int
    manifest: snapshot_pb2.Manifest = field(repr=False)

    @property
    def snapshot_id(self) -> str:
        """The id of the snapshot."""
        return self.manifest.snapshot_id


def collection_names(store: Store, collections: Sequence[str]) -> list[str]:
    """Returns the names of the collections to serve.

    Args:
        store: The store.
        collections: Names; empty means every collection of the store.
    Raises: NotFound: no names are given, and the store is empty.
    """
    names = list(collections) or store.collections()
    if not names:
        raise no_collection_error(store)
    return names


def no_collection_error(store: Store) -> NotFound:
    """Returns the error for a store without any collection."""
    return NotFound(
        f"store {store.url} has no published collection; build one: "
        f"nearline build --corpus FILE --store {store.url}; or start with --allow-empty and create "
        "one: nearline collections create NAME"
    )


def read_snapshot_ref(store: Store, collection: str, snapshot_id: str, epoch: int) -> SnapshotRef:
    """Reads the manifest of a snapshot that an alias record names.

    Raises: NotFound: the snapshot does not exist. SnapshotCorrupt, SnapshotMismatch: its manifest
        cannot be read.
    """
    manifest = store.manifest(collection, snapshot_id)
    return SnapshotRef(collection=collection, epoch=epoch, manifest=manifest)


def read_current_snapshots(store: Store, collections: Sequence[str]) -> list[SnapshotRef]:
    """Reads the current snapshot of each collection.

    Args:
        store: The store.
        collections: Names; empty means every collection of the store.
    Raises: NotFound: a collection has no published snapshot, or the store is empty.
    """
    records = {name: store.alias_in_force(name) for name in collection_names(store, collections)}
    return [
        read_snapshot_ref(store, name, record.current, record.epoch)
        for name, record in records.items()
    ]
