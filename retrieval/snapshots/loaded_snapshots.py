"""Loaded snapshots: which are current, in use, or can be dropped. No clock, no I/O.

    add -> make_current -> (another one becomes current) -> drained -> drop

A snapshot can be dropped once no alias names it, it is not current, no request uses it, and
`drain_s` seconds have passed since the last of these became true. If its collection was dropped,
there is no such wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")


class SnapshotKey(NamedTuple):
    """A snapshot of a collection."""

    collection: str
    snapshot_id: str


class LoadedSnapshot(Generic[_T]):
    """A loaded snapshot; a `with` block marks it as used by one request.

    Args:
        key: Collection and snapshot id.
        value: The loaded value; replaced if the snapshot is added again.
        clock: Returns monotonic seconds.
    """

    __slots__ = ("_clock", "_users", "idle_since", "key", "unwanted", "value")

    def __init__(self, key: SnapshotKey, value: _T, clock: Callable[[], float]) -> None:
        self.key = key
        self.value = value
        self.idle_since = clock()
        # Whether its collection was dropped: nobody will ask for it again.
        self.unwanted = False
        self._clock = clock
        self._users = 0

    @property
    def in_use(self) -> bool:
        """Whether a request uses the snapshot."""
        return self._users > 0

    def touch(self) -> None:
        """Restarts the drain time after a use."""
        self.idle_since = self._clock()

    def __enter__(self) -> _T:
        self._users += 1
        return self.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._users -= 1
        self.idle_since = self._clock()


class LoadedSnapshots(Generic[_T]):
    """The loaded snapshots. Not thread-safe; belongs to the event loop.

    Args:
        drain_s: Seconds that a snapshot stays after its last use.
        clock: Returns monotonic seconds, such as time.monotonic.
    """

    def __init__(self, drain_s: float, clock: Callable[[], float]) -> None:
        self._drain_s = drain_s
        self._clock = clock
        self._snapshots: dict[SnapshotKey, LoadedSnapshot[_T]] = {}
        self._in_force: dict[str, LoadedSnapshot[_T]] = {}
        self._named: dict[str, frozenset[str]] = {}

    @property
    def in_force(self) -> Collection[LoadedSnapshot[_T]]:
        """The current snapshots, one per collection, by name of the collection."""
        return [self._in_force[name] for name in sorted(self._in_force)]

    @property
    def all(self) -> Collection[LoadedSnapshot[_T]]:
        """All loaded snapshots, sorted by key."""
        return [self._snapshots[key] for key in sorted(self._snapshots)]

    def current(self, collection: str) -> LoadedSnapshot[_T] | None:
        """Returns the current snapshot of a collection; None without one."""
        return self._in_force.get(collection)

    def get(self, collection: str, snapshot_id: str) -> LoadedSnapshot[_T] | None:
        """Returns a loaded snapshot; None if it is not loaded."""
        return self._snapshots.get(SnapshotKey(collection, snapshot_id))

    def of_collection(self, collection: str) -> list[LoadedSnapshot[_T]]:
        """Returns the loaded snapshots of a collection, oldest first."""
        return [held for held in self.all if held.key.collection == collection]

    def add(self, collection: str, snapshot_id: str, value: _T) -> LoadedSnapshot[_T]:
        """Adds a loaded snapshot, or replaces its value if it was added before."""
        key = SnapshotKey(collection, snapshot_id)
        held = self._snapshots.get(key)
        if held is None:
            held = self._snapshots[key] = LoadedSnapshot(key, value, self._clock)
        held.value = value
        held.touch()
        return held

    def make_current(self, collection: str, snapshot_id: str) -> None:
        """Makes a loaded snapshot current; running requests finish on the previous one."""
        before = self._in_force.get(collection)
        self._in_force[collection] = self._snapshots[SnapshotKey(collection, snapshot_id)]
        if before is not None:
            before.touch()

    def remove_collection(self, collection: str) -> None:
        """Ends a collection: none of its snapshots is current; each can be dropped once unused."""
        self._in_force.pop(collection, None)
        self._named.pop(collection, None)
        for held in self.of_collection(collection):
            held.unwanted = True

    def set_named(self, collection: str, snapshot_ids: Collection[str]) -> None:
        """Sets the snapshots that the current alias record names."""
        named = frozenset(snapshot_ids)
        for snapshot_id in self._named.get(collection, frozenset()) - named:
            held = self._snapshots.get(SnapshotKey(collection, snapshot_id))
            if held is not None:
                held.touch()
        self._named[collection] = named

    def droppable(self) -> list[SnapshotKey]:
        """Returns the snapshots that can be dropped now."""
        last = self._clock() - self._drain_s
        return [
            key
            for key, held in self._snapshots.items()
            if not held.in_use
            and (held.idle_since <= last or held.unwanted)
            and self._in_force.get(key.collection) is not held
            and key.snapshot_id not in self._named.get(key.collection, ())
        ]

    def drop(self, key: SnapshotKey) -> _T:
        """Removes a droppable snapshot and returns its value, which the caller releases."""
        return self._snapshots.pop(key).value
