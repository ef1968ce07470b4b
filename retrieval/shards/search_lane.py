"""Searches of a shard that wait for the same threads, and are done in batches."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial

from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.shards.batcher import Batcher

SearchFunction = Callable[[ShardQueries, ShardOptions], list[ShardHits]]


class SearchQueue:
    """Does searches of one shard in some threads.

    Args:
        search: Searches, in the calling thread.
        threads: Threads to search in; may be shared with other lanes.
        max_batch: Most queries in a batch.
        observe: Told the size of every batch.

    coalescer: What is asked.
    """

    def __init__(
        self,
        search: SearchFunction,
        threads: ThreadPool,
        *,
        max_batch: int,
        observe: Callable[[float], None],
    ) -> None:
        self._search = search
        self._threads = threads
        self.coalescer: Batcher[ShardOptions, ShardHits] = Batcher(
            self._start, slots=threads.count, max_batch=max_batch, observe=observe
        )

    def close(self) -> None:
        """Releases whose searches these are; none may be running."""
        # The old ones refer to the shard. Without that circle all memory goes with the last
        # reference, and not when the collector happens to come by.
        self._search = _find_nothing
        self.coalescer = Batcher(_start_nothing, slots=0, max_batch=1)

    def _start(self) -> None:
        self._threads.start(partial(self._run, asyncio.get_running_loop()))

    def _run(self, loop: AbstractEventLoop) -> None:
        """Answers batches in a search thread for as long as there are any."""
        while (batch := self.coalescer.take()) is not None:
            results, error = None, None
            try:
                results = self._search(batch.queries, batch.options)
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(self.coalescer.finish, batch, results, error)


def _find_nothing(queries: ShardQueries, options: ShardOptions) -> list[ShardHits]:
    """Stands for the search of a shard that is closed."""
    return []


def _start_nothing() -> None:
    """Stands for the start of runners in a shard that is closed."""
