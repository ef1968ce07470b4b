"""Which snapshot of each collection the aliases name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nearline.errors import NotFound
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2

COSINE = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInForce:
    """What the alias record in force names, read once."""

    collection: str
    epoch: int
    manifest: snapshot_pb2.Manifest = field(repr=False)

    @property
    def snapshot_id(self) -> str:
        """Id of the snapshot."""
        return self.manifest.snapshot_id


def in_force(store: Store, collections: Sequence[str]) -> list[SnapshotInForce]:
    """Reads which snapshots are in force.

    Args:
        store: The store.
        collections: Names; none: every collection of the store.
    Raises: NotFound: a collection has nothing published, or the store is empty.
    """
    names = list(collections) or store.collections()
    if not names:
        raise NotFound(
            f"store {store.url} has no published collection; build one: "
            f"nearline build --corpus FILE --store {store.url}"
        )
    found = []
    for name in names:
        record = store.alias_in_force(name)
        manifest = store.manifest(name, record.current)
        found.append(SnapshotInForce(collection=name, epoch=record.epoch, manifest=manifest))
    return found
