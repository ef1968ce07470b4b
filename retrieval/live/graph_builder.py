"""Builds graphs over live vectors in a background thread that runs while there is work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from retrieval.index.vectors.faiss_index import use_one_thread
from retrieval.live.graphs import BuildGraph
from retrieval.live.vectors import LiveVectors, VectorBlock

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
