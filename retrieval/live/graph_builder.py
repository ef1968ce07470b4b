"""Builds graphs over live vectors, in a thread that is there while there is something to build."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from retrieval.index.vectors.faiss_index import use_one_thread
from retrieval.live.graphs import BuildGraph
from retrieval.live.vectors import LiveVectors, VectorBlock


class GraphBuilder:
    """Seals the vectors of one delta.

    Args:
        name: Of the thread.
        build: Builds the graphs.
        lock: Held by whoever changes the vectors.
        current: Gives the vectors in use, and after them those that will take their place.
        sealed: Told that they were sealed further; called with the lock held.
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
        """Starts where there is something to seal; the lock is held."""
        if self._thread is None and not self._closing.is_set() and self._to_seal():
            self._thread = threading.Thread(target=self._run, name=self._name)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread, within a fraction of a second; the lock is not held."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        use_one_thread()
        try:
            while task := self._next():
                self._seal(*task)
        except BaseException:
            with self._lock:
                self._thread = None
            raise

    def _next(self) -> tuple[LiveVectors, Sequence[VectorBlock]] | None:
        with self._lock:
            task = None if self._closing.is_set() else self._to_seal()
            if task is None:
                self._thread = None
            return task

    def _to_seal(self) -> tuple[LiveVectors, Sequence[VectorBlock]] | None:
        """Says what is next: what has no graph, then a merge, of what is kept longest."""
        current = self._current()
        for vectors in current:
            if (fresh := vectors.unsealed()) is not None:
                return vectors, (fresh,)
        merge = current[-1].to_merge()
        return (current[-1], merge) if merge else None

    def _seal(self, vectors: LiveVectors, stretches: Sequence[VectorBlock]) -> None:
        def goes_on() -> bool:
            if len(stretches) > 1:
                # What has no graph yet costs every search a scan: it does not wait for a merge.
                with self._lock:
                    task = self._to_seal()
                if task is not None and len(task[1]) == 1:
                    self._seal(*task)
            return not self._closing.is_set() and vectors in self._current()

        graph = self._build([one.vectors for one in stretches], goes_on)
        if graph is not None:
            with self._lock:
                vectors.seal(stretches, graph)
                self._sealed()
