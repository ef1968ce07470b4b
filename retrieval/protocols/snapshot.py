"""Which snapshot of each collection the aliases name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nearline.errors import NotFound
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2

COSINE = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRef:
    """What an alias record names, read once.

    epoch: Number of the record; 0 where none names it and it is only to be loaded.
    """

    collection: str
    epoch: int
    manifest: snapshot_pb2.Manifest = field(repr=False)

    @property
    def snapshot_id(self) -> str:
        """Id of the snapshot."""
        return self.manifest.snapshot_id


def collection_names(store: Store, collections: Sequence[str]) -> list[str]:
    """Returns the names of the collections to serve.

    Args:
        store: The store.
        collections: Names; none: every collection of the store.
    Raises: NotFound: none was given, and the store is empty.
    """
    names = list(collections) or store.collections()
    if not names:
        raise NotFound(
            f"store {store.url} has no published collection; build one: "
            f"nearline build --corpus FILE --store {store.url}"
        )
    return names


def read_snapshot_ref(store: Store, collection: str, snapshot_id: str, epoch: int) -> SnapshotRef:
    """Reads what a record names.

    Raises: NotFound: there is no such snapshot. SnapshotCorrupt, SnapshotMismatch: its manifest
        cannot be read.
    """
    manifest = store.manifest(collection, snapshot_id)
    return SnapshotRef(collection=collection, epoch=epoch, manifest=manifest)


def read_current_snapshots(store: Store, collections: Sequence[str]) -> list[SnapshotRef]:
    """Reads which snapshots are in force.

    Args:
        store: The store.
        collections: Names; none: every collection of the store.
    Raises: NotFound: a collection has nothing published, or the store is empty.
    """
    records = {name: store.alias_in_force(name) for name in collection_names(store, collections)}
    return [read_snapshot_ref(store, name, one.current, one.epoch) for name, one in records.items()]
