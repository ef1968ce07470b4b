"""The live changes of one shard: a live segment, and the documents of the snapshot they hide."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.index.filtering.planner import Matches
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.protocols import Documents
from retrieval.index.segment import Segment
from retrieval.index.vectors.faiss_index import use_one_thread
from retrieval.live.delta_protocol import ChangeUnusable, DeltaStats
from retrieval.live.documents import LiveItem
from retrieval.live.graphs import BuildGraph, build_in_thread
from retrieval.live.live_segment import Compaction, LiveSegment
from retrieval.live.progress import LiveView
from retrieval.live.vectors import LiveVectors, VectorBlock
from retrieval.protocols.watermark import AppliedState, Watermark

# Every search scans the rows of full blocks without a graph: 65,536 x 384 take it 10 ms. From then
# on, builds take a core from searches, which would otherwise take longer and longer.
_URGENT_ROWS = 65_536


class GraphBuilder:
    """Builds graphs over the full blocks of one delta.

    Args:
        name: Name of the thread.
        build: Builds a graph.
        lock: The lock for changes of the vectors.
        current: Returns the vectors in use, followed by those of a compaction in progress.
        sealed: Called with the lock held after each new graph.
    """

    def __init__(
        self,
        name: str,
        build: BuildGraph,
        lock: threading.Lock,
        current: Callable[[], Sequence[LiveVectors]],
        sealed: Callable[[], None],
    ) -> None:
        self._name = name
        self._build = build
        self._lock = lock
        self._current = current
        self._sealed = sealed
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def wake(self) -> None:
        """Starts the thread if there is work; the caller holds the lock."""
        if self._thread is None and not self._closing.is_set() and self._next_task():
            self._thread = threading.Thread(target=self._run, name=self._name)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread within a fraction of a second; the caller must not hold the lock."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        use_one_thread()
        try:
            while task := self._take_task():
                self._seal(*task)
        except BaseException:
            with self._lock:
                self._thread = None
            raise

    def _take_task(self) -> tuple[LiveVectors, Sequence[VectorBlock]] | None:
        with self._lock:
            task = None if self._closing.is_set() else self._next_task()
            if task is None:
                self._thread = None
            return task

    def _next_task(self) -> tuple[LiveVectors, Sequence[VectorBlock]] | None:
        """Returns the next blocks that a graph should replace, and what they belong to."""
        # A compaction ends once its blocks have graphs; the others are then dropped.
        for vectors in reversed(self._current()):
            if blocks := vectors.next_to_seal():
                return vectors, blocks
        return None

    def _seal(self, vectors: LiveVectors, blocks: Sequence[VectorBlock]) -> None:
        def should_continue() -> bool:
            return not self._closing.is_set() and vectors in self._current()

        def urgent() -> bool:
            return sum(one.unsealed_rows for one in self._current()) >= _URGENT_ROWS

        graph = self._build(blocks[0].graph, blocks[-1].vectors, should_continue, urgent)
        if graph is not None:
            with self._lock:
                vectors.seal(blocks, graph)
                self._sealed()


# Compaction starts once there are more dead rows than this number and more than alive rows. Each
# change then advances the compaction by some documents.
_MAX_DEAD_ROWS = 4_096
_DOCUMENTS_PER_CHANGE = 4


class Survivors:
    """The documents of a snapshot that are not replaced, deleted or expired; one writer.

    Args:
        items: All documents of the snapshot segment.
    """

    def __init__(self, items: Documents) -> None:
        self._items = items
        self._documents = np.ones(items.documents, np.bool_)
        # If every document has one row, documents and chunks share one array.
        self._one_each = items.max_chunks <= 1 and items.chunks == items.documents
        self._chunks = self._documents if self._one_each else np.ones(items.chunks, np.bool_)
        self._matches: Matches | None = None
        self._changed = False
        self.hidden_documents = 0
        self.hidden_rows = 0

    def find(self, document_id: str) -> int | None:
        """Returns the document with an id; None if it is absent or hidden."""
        document = self._items.find(document_id)
        return document if document is not None and self._documents[document] else None

    def hide(self, document: int) -> bool:
        """Hides a document; returns False if it already is."""
        if not self._documents[document]:
            return False
        rows = self._items.rows_of(document)
        self._documents[document] = False
        self._chunks[rows] = False
        self.hidden_documents += 1
        self.hidden_rows += len(rows)
        self._changed = True
        return True

    def matches(self) -> Matches | None:
        """Returns an immutable copy of the remaining documents; None if all remain."""
        if self._changed:
            documents = self._documents.copy()
            chunks = documents if self._one_each else self._chunks.copy()
            bitmap = np.packbits(chunks, bitorder="little")
            self._matches = Matches(documents, chunks, bitmap, len(chunks) - self.hidden_rows)
            self._changed = False
        return self._matches


class LiveDelta:
    """The live changes of one shard of one snapshot.

    One thread at a time may change it; any thread may read the view. While there is work, a
    background thread builds graphs over new vectors.

    Args:
        base: The segment of the snapshot.
        manifest: Manifest of the snapshot.
        vocabulary: Words of the snapshot; None if it has no lexical index.
        number: Shard number, for the name of the thread.
        start: Position up to which the snapshot contains the log.
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
        self._segment = LiveSegment(manifest, vocabulary)
        # Will replace the segment once it is complete.
        self._compaction: Compaction | None = None
        # Expiring documents, as heaps of (microseconds since 1970, document).
        self._base_expiries = _expiry_heap(base.items)
        self._live_expiries: list[tuple[int, int]] = []
        self._changes = 0
        self._oldest_change_us = 0
        self._lock = threading.Lock()
        self._graph_builder: GraphBuilder | None = GraphBuilder(
            f"seal-{number}", build, self._lock, self._vectors, self._publish
        )
        self._publish()

    @property
    def view(self) -> LiveView:
        """The newest state; may be read from any thread."""
        return self._view

    def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes, and publishes one new view with all of them; blocks.

        Skips changes that the watermark already covers.

        Args:
            entries: Changes in the partitions of this shard, in order within each partition.
        Raises: ChangeUnusable: see `FollowedDelta.apply`.
        """
        with self._lock:
            now = datetime.now(UTC)
            positions = dict(enumerate(self._watermark.positions))
            before = self._changes
            for entry in entries:
                if entry.position > positions[entry.partition]:
                    try:
                        self._apply(entry, now)
                    except MemoryError:
                        raise
                    except Exception as error:
                        raise ChangeUnusable(entry) from error
                    positions[entry.partition] = entry.position
                    self._changes += 1
                    oldest = self._oldest_change_us or entry.time_us
                    self._oldest_change_us = min(oldest, entry.time_us)
            if self._changes == before:
                return
            self._watermark = self._watermark.advanced(positions)
            self._compact(self._changes - before)
            self._publish()
            if self._graph_builder is not None:
                self._graph_builder.wake()

    def expire(self, now: datetime) -> bool:
        """Hides expired documents; publishes a new view if there are any.

        Args:
            now: Aware time.
        Returns: Whether any document expired.
        """
        now_us = to_us(now)
        with self._lock:
            base = [
                self._survivors.hide(number) for number in _pop_expired(self._base_expiries, now_us)
            ]
            live = [self._remove(number) for number in _pop_expired(self._live_expiries, now_us)]
            changed = any(base) or any(live)
            if changed:
                self._publish()
            return changed

    def stats(self) -> DeltaStats:
        """Returns the size as of the newest view; never blocks."""
        return self._stats

    def close(self) -> None:
        """Stops background work; views remain usable."""
        with self._lock:
            # The builder refers to this delta. Without the cycle, the last reference frees all
            # memory.
            builder, self._graph_builder = self._graph_builder, None
        if builder is not None:
            builder.close()

    def _publish(self) -> None:
        part, alive = self._segment.part()
        self._view = LiveView(AppliedState(self._watermark), self._survivors.matches(), part, alive)
        self._stats = DeltaStats(
            self._segment.rows,
            self._segment.dead_rows,
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
                copy = self._with_attributes(entry)
                if copy is not None:
                    self._hide(change.document_id)
                    self._add(*copy, now)

    def _vectors_of(self, change: Change) -> NDArray[np.float32]:
        vectors = change.vectors[self._fingerprint]
        expected = (len(change.bounds), self._dim)
        assert vectors.shape == expected, (
            f"{change.document_id!r} has vectors of shape {vectors.shape}, expected {expected}. "
            "This is a bug."
        )
        return vectors

    def _with_attributes(
        self, entry: ChangeEntry
    ) -> tuple[LiveItem, NDArray[np.int64], NDArray[np.float32]] | None:
        """Returns a copy of the item that an entry changes, with the new attributes."""
        change = entry.change
        document = self._segment.find(change.document_id)
        if document is not None:
            old = self._segment.items.items[document]
            rows = self._segment.items.rows_of(document)
            merged = _merge_attributes(old.attributes, change.attributes)
            item = old._replace(
                attributes=merged, version=entry.position, expires=change.expires or old.expires
            )
            return item, self._segment.items.bounds_of(rows), self._segment.vectors.read(rows)
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
        known = self._base.items.find(item.id)
        if known is not None:
            item = item._replace(popularity=self._base.popularity(known))
        if item.expires is None:
            self._segment.add(item, bounds, vectors)
        elif item.expires > now:
            document = self._segment.add(item, bounds, vectors)
            heapq.heappush(self._live_expiries, (to_us(item.expires), document))

    def _hide(self, document_id: str) -> None:
        live = self._segment.find(document_id)
        if live is not None:
            self._remove(live)
            return
        document = self._survivors.find(document_id)
        if document is not None:
            self._survivors.hide(document)

    def _remove(self, document: int) -> bool:
        removed = self._segment.remove(document)
        if removed and self._compaction is not None:
            self._compaction.remove(document)
        return removed

    def _compact(self, changes: int) -> None:
        """Starts or advances a compaction if many rows are dead."""
        segment = self._segment
        if self._compaction is None:
            if segment.dead_rows <= _MAX_DEAD_ROWS or 2 * segment.dead_rows <= segment.rows:
                return
            self._compaction = Compaction(segment)
        self._compaction.advance(_DOCUMENTS_PER_CHANGE * changes)
        if self._compaction.done:
            self._segment, self._compaction = self._compaction.new, None
            all_documents = np.ones(self._segment.documents, np.bool_)
            self._live_expiries = _expiry_heap(self._segment.items.view(all_documents))

    def _vectors(self) -> Sequence[LiveVectors]:
        """Returns the vectors in use, and those of a compaction in progress. Thread-safe."""
        compaction = self._compaction
        compacted = () if compaction is None else (compaction.new.vectors,)
        return (self._segment.vectors, *compacted)


def _pop_expired(heap: list[tuple[int, int]], now_us: int) -> list[int]:
    """Removes and returns the expired documents of a heap."""
    expired = []
    while heap and heap[0][0] <= now_us:
        expired.append(heapq.heappop(heap)[1])
    return expired


def _merge_attributes(old: Attributes, changes: Attributes) -> Attributes:
    return {name: v for name, v in {**old, **changes}.items() if v is not None}


def _expiry_heap(documents: Documents) -> list[tuple[int, int]]:
    """Returns expiry times and documents, sorted, which makes it a heap."""
    numbers, times = documents.expiries()
    return list(zip(times.tolist(), numbers.tolist(), strict=True))
