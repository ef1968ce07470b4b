"""The live changes of one shard, applied beside its immutable part."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.protocols import Documents
from retrieval.index.segment import Segment
from retrieval.live.compaction import Compaction
from retrieval.live.delta_protocol import DeltaStats
from retrieval.live.documents import LiveItem
from retrieval.live.graph_builder import GraphBuilder
from retrieval.live.graphs import BuildGraph, build_in_thread
from retrieval.live.live_segment import LiveSegment
from retrieval.live.survivors import Survivors
from retrieval.live.vectors import LiveVectors
from retrieval.live.view import LiveView
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import Watermark

# Dead rows are cleared away once there are more than so many, and more than living ones; with every
# change so many documents are looked at.
_MOST_DEAD_ROWS = 4_096
_MOVED = 4


class LiveDelta:
    """What live changes made of one shard of one snapshot.

    One thread at a time changes it; any thread may take the view. A background thread, there while
    there is something to do, builds graphs over what has come.

    Args:
        base: The part of the snapshot.
        manifest: Of the snapshot.
        vocabulary: Words of the snapshot; None where it has no lexical index.
        number: Shard number, for the name of the thread.
        start: How far the log is contained in the snapshot.
        build: Builds the graphs.
    """

    def __init__(
        self,
        base: Segment,
        manifest: snapshot_pb2.Manifest,
        vocabulary: Vocabulary | None,
        number: int,
        start: Watermark,
        build: BuildGraph = build_in_thread,
    ) -> None:
        self._base = base
        self._fingerprint = manifest.embedder.fingerprint
        self._dim = manifest.dim
        self._watermark = start
        self._survivors = Survivors(base.items)
        self._store = LiveSegment(manifest, vocabulary)
        # What will take the place of the store.
        self._renewal: Compaction | None = None
        # What expires, as heaps of (microseconds since 1970, document).
        self._base_due = _heap_of(base.items)
        self._due: list[tuple[int, int]] = []
        self._changes = 0
        self._oldest_change_us = 0
        self._lock = threading.Lock()
        self._sealer: GraphBuilder | None = GraphBuilder(
            f"seal-{number}", build, self._lock, self._vectors, self._publish
        )
        self._publish()

    @property
    def view(self) -> LiveView:
        """The newest state; may be read from any thread."""
        return self._view

    def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes, and publishes one new view that has all of them; blocks.

        What the watermark covers already is passed over.

        Args:
            entries: Of the partitions of this shard, in the order of each.
        """
        with self._lock:
            now = datetime.now(UTC)
            reached = dict(enumerate(self._watermark.positions))
            before = self._changes
            for entry in entries:
                if entry.position > reached[entry.partition]:
                    self._apply(entry, now)
                    reached[entry.partition] = entry.position
                    self._changes += 1
                    oldest = self._oldest_change_us or entry.time_us
                    self._oldest_change_us = min(oldest, entry.time_us)
            if self._changes == before:
                return
            self._watermark = self._watermark.advanced(reached)
            self._renew(self._changes - before)
            self._publish()
            if self._sealer is not None:
                self._sealer.wake()

    def expire(self, now: datetime) -> bool:
        """Hides what is served no more from now on; publishes a view where that changed anything.

        Args:
            now: Aware.
        Returns: Whether anything changed.
        """
        now_us = to_us(now)
        with self._lock:
            base = [self._survivors.hide(number) for number in _pop_due(self._base_due, now_us)]
            live = [self._remove(number) for number in _pop_due(self._due, now_us)]
            changed = any(base) or any(live)
            if changed:
                self._publish()
            return changed

    def stats(self) -> DeltaStats:
        """Returns how large it is, as of the newest view; waits for nobody."""
        return self._stats

    def close(self) -> None:
        """Stops what runs in the background; views stay usable."""
        with self._lock:
            # It refers to this delta. Without that circle all memory goes with the last reference.
            sealer, self._sealer = self._sealer, None
        if sealer is not None:
            sealer.close()

    def _publish(self) -> None:
        part, alive = self._store.part()
        self._view = LiveView(AppliedState(self._watermark), self._survivors.matches(), part, alive)
        self._stats = DeltaStats(
            self._store.rows,
            self._store.dead_rows,
            self._survivors.hidden_rows,
            self._changes,
            self._oldest_change_us,
        )

    def _apply(self, entry: ChangeEntry, now: datetime) -> None:
        change = entry.change
        match change.kind:
            case ChangeKind.UPSERT:
                item = LiveItem(
                    change.document_id,
                    change.title,
                    change.text,
                    change.attributes,
                    entry.position,
                    change.expires,
                )
                vectors = self._vectors_of(change)
                self._hide(change.document_id)
                self._add(item, change.bounds, vectors, now)
            case ChangeKind.DELETE:
                self._hide(change.document_id)
            case ChangeKind.ATTRIBUTES:
                found = self._copied(entry)
                if found is not None:
                    self._hide(change.document_id)
                    self._add(*found, now)

    def _vectors_of(self, change: Change) -> NDArray[np.float32]:
        vectors = change.vectors[self._fingerprint]
        wanted = (len(change.bounds), self._dim)
        assert vectors.shape == wanted, (
            f"{change.document_id!r} has vectors of shape {vectors.shape}, {wanted} are needed. "
            "This is a bug."
        )
        return vectors

    def _copied(
        self, entry: ChangeEntry
    ) -> tuple[LiveItem, NDArray[np.int64], NDArray[np.float32]] | None:
        """Returns the item that an entry changes, with its attributes changed."""
        change = entry.change
        document = self._store.find(change.document_id)
        if document is not None:
            old = self._store.items.items[document]
            rows = self._store.items.rows_of(document)
            merged = _merge_attributes(old.attributes, change.attributes)
            item = old._replace(
                attributes=merged, version=entry.position, expires=change.expires or old.expires
            )
            return item, self._store.items.bounds_of(rows), self._store.vectors.read(rows)
        document = self._survivors.find(change.document_id)
        if document is None:
            return None
        items = self._base.items
        rows = items.rows_of(document)
        _, starts, ends = items.chunks_of(rows, np.full(len(rows), document))
        item = LiveItem(
            change.document_id,
            items.title(document),
            items.text(document),
            _merge_attributes(items.attributes(document), change.attributes),
            entry.position,
            change.expires or items.expires(document),
        )
        bounds = np.array([starts, ends], np.int64).T
        return item, bounds, self._base.index.reconstruct(rows)

    def _add(
        self,
        item: LiveItem,
        bounds: NDArray[np.int64],
        vectors: NDArray[np.float32],
        now: datetime,
    ) -> None:
        if item.expires is None:
            self._store.add(item, bounds, vectors)
        elif item.expires > now:
            document = self._store.add(item, bounds, vectors)
            heapq.heappush(self._due, (to_us(item.expires), document))

    def _hide(self, document_id: str) -> None:
        live = self._store.find(document_id)
        if live is not None:
            self._remove(live)
            return
        document = self._survivors.find(document_id)
        if document is not None:
            self._survivors.hide(document)

    def _remove(self, document: int) -> bool:
        removed = self._store.remove(document)
        if removed and self._renewal is not None:
            self._renewal.remove(document)
        return removed

    def _renew(self, changes: int) -> None:
        """Goes on with a store that lacks what is dead, where that is much."""
        store = self._store
        if self._renewal is None:
            if store.dead_rows <= _MOST_DEAD_ROWS or 2 * store.dead_rows <= store.rows:
                return
            self._renewal = Compaction(store)
        self._renewal.move(_MOVED * changes)
        if self._renewal.done:
            self._store, self._renewal = self._renewal.new, None
            everything = np.ones(self._store.documents, np.bool_)
            self._due = _heap_of(self._store.items.view(everything))

    def _vectors(self) -> Sequence[LiveVectors]:
        """Returns the vectors in use, and what will take their place."""
        renewed = () if self._renewal is None else (self._renewal.new.vectors,)
        return (self._store.vectors, *renewed)


def _pop_due(due: list[tuple[int, int]], now_us: int) -> list[int]:
    """Takes those out of a heap whose time has come."""
    taken = []
    while due and due[0][0] <= now_us:
        taken.append(heapq.heappop(due)[1])
    return taken


def _merge_attributes(old: Attributes, changes: Attributes) -> Attributes:
    return {name: v for name, v in {**old, **changes}.items() if v is not None}


def _heap_of(documents: Documents) -> list[tuple[int, int]]:
    """Returns when documents expire, and which; sorted, so a heap."""
    numbers, times = documents.expiries()
    return list(zip(times.tolist(), numbers.tolist(), strict=True))
