"""Which snapshots are loaded here, which of them is in force, and which may go. No clock, no I/O.

    hold -> flip -> (another one flips) -> drained -> drop

A snapshot may go once no alias names it, it is not in force here, no request uses it, and `drain_s`
have passed since the last of these became true.
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
    """A loaded snapshot; a `with` block holds it for one request.

    Args:
        key: Which.
        value: What is loaded; replaced where the same snapshot is held again.
        clock: Gives seconds that never go back.
    """

    __slots__ = ("_clock", "_users", "idle_since", "key", "value")

    def __init__(self, key: SnapshotKey, value: _T, clock: Callable[[], float]) -> None:
        self.key = key
        self.value = value
        self.idle_since = clock()
        self._clock = clock
        self._users = 0

    @property
    def in_use(self) -> bool:
        """Whether a request is being answered from it."""
        return self._users > 0

    def touch(self) -> None:
        """Starts its time to drain again: somebody has just asked for it."""
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
    """The snapshots that are loaded here. Not thread-safe: it belongs to the event loop.

    Args:
        drain_s: Seconds that a snapshot stays after its last use.
        clock: Gives seconds that never go back, for example time.monotonic.
    """

    def __init__(self, drain_s: float, clock: Callable[[], float]) -> None:
        self._drain_s = drain_s
        self._clock = clock
        self._held: dict[SnapshotKey, LoadedSnapshot[_T]] = {}
        self._in_force: dict[str, LoadedSnapshot[_T]] = {}
        self._named: dict[str, frozenset[str]] = {}

    @property
    def in_force(self) -> Collection[LoadedSnapshot[_T]]:
        """What is in force, one per collection, by name of the collection."""
        return [self._in_force[name] for name in sorted(self._in_force)]

    @property
    def all(self) -> Collection[LoadedSnapshot[_T]]:
        """All that is held, in the order of their keys."""
        return [self._held[key] for key in sorted(self._held)]

    def current(self, collection: str) -> LoadedSnapshot[_T] | None:
        """Returns what is in force of a collection; None: nothing."""
        return self._in_force.get(collection)

    def get(self, collection: str, snapshot_id: str) -> LoadedSnapshot[_T] | None:
        """Returns a snapshot that is held; None: it is not."""
        return self._held.get(SnapshotKey(collection, snapshot_id))

    def of(self, collection: str) -> list[LoadedSnapshot[_T]]:
        """Returns what is held of a collection, oldest snapshot first."""
        return [held for held in self.all if held.key.collection == collection]

    def hold(self, collection: str, snapshot_id: str, value: _T) -> LoadedSnapshot[_T]:
        """Takes a snapshot that is loaded; in place of its value where it is held already."""
        key = SnapshotKey(collection, snapshot_id)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = LoadedSnapshot(key, value, self._clock)
        held.value = value
        held.touch()
        return held

    def flip(self, collection: str, snapshot_id: str) -> None:
        """Puts a held snapshot in force; requests that began before end on the one before."""
        before = self._in_force.get(collection)
        self._in_force[collection] = self._held[SnapshotKey(collection, snapshot_id)]
        if before is not None:
            before.touch()

    def name(self, collection: str, snapshot_ids: Collection[str]) -> None:
        """Notes which snapshots the alias record in force names."""
        named = frozenset(snapshot_ids)
        for snapshot_id in self._named.get(collection, frozenset()) - named:
            held = self._held.get(SnapshotKey(collection, snapshot_id))
            if held is not None:
                held.touch()
        self._named[collection] = named

    def due(self) -> list[SnapshotKey]:
        """Returns what may go now."""
        last = self._clock() - self._drain_s
        return [
            key
            for key, held in self._held.items()
            if not held.in_use
            and held.idle_since <= last
            and self._in_force.get(key.collection) is not held
            and key.snapshot_id not in self._named.get(key.collection, ())
        ]

    def drop(self, key: SnapshotKey) -> _T:
        """Forgets a snapshot that is due, and gives what is to be let go of."""
        return self._held.pop(key).value
