"""What was changed since its snapshot, for every collection that a router serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from nearline.snapshot import Store
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.snapshot import SnapshotRef


class ChangeTrackerRegistry(Mapping[str, ChangeTracker]):
    """By collection, what was changed lately; nothing where no log is followed.

    Args:
        store: Names the logs.
        logs: Reads them; None: there is no Redis.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None) -> None:
        self._store = store
        self._logs = logs
        self._touched: dict[str, ChangeTracker] = {}

    def __getitem__(self, collection: str) -> ChangeTracker:
        return self._touched[collection]

    def __iter__(self) -> Iterator[str]:
        return iter(self._touched)

    def __len__(self) -> int:
        return len(self._touched)

    async def follow(self, snapshot: SnapshotRef) -> None:
        """Follows the changes since a snapshot from now on."""
        if self._logs is None:
            return
        name, manifest = snapshot.collection, snapshot.manifest
        touched = self._touched.get(name)
        if touched is not None:
            touched.rebase(manifest)
            return
        # Imported late: a router needs no pyarrow until a collection asks for it.
        from retrieval.changelog.retention import followable_logs

        touched = ChangeTracker(
            self._logs.reader(name), manifest, logs=partial(followable_logs, self._store, name)
        )
        self._touched[name] = touched
        await touched.start()

    async def close(self) -> None:
        """Follows nothing any more."""
        for touched in self._touched.values():
            await touched.close()
