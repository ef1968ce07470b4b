"""Change trackers of all collections that a router serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from nearline.store.snapshot import Store
from retrieval.cache.change_tracker import ChangeTracker
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.snapshot import SnapshotRef


class ChangeTrackerRegistry(Mapping[str, ChangeTracker]):
    """Change trackers by collection; empty if no logs are followed.

    Args:
        store: Stores the names of the logs.
        logs: Reads the logs; None disables tracking.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None) -> None:
        self._store = store
        self._logs = logs
        self._trackers: dict[str, ChangeTracker] = {}

    def __getitem__(self, collection: str) -> ChangeTracker:
        return self._trackers[collection]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trackers)

    def __len__(self) -> int:
        return len(self._trackers)

    async def follow(self, snapshot: SnapshotRef) -> None:
        """Starts to track the changes of a collection since a snapshot."""
        if self._logs is None:
            return
        name, manifest = snapshot.collection, snapshot.manifest
        tracker = self._trackers.get(name)
        if tracker is not None:
            tracker.rebase(manifest)
            return
        # Imported late: a router needs no pyarrow until a collection does.
        from retrieval.changelog.retention import followable_logs

        tracker = ChangeTracker(
            self._logs.reader(name), manifest, logs=partial(followable_logs, self._store, name)
        )
        self._trackers[name] = tracker
        await tracker.start()

    async def close(self) -> None:
        """Stops all trackers."""
        for tracker in self._trackers.values():
            await tracker.close()
