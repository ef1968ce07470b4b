"""Puts concurrent queries into one batch, but only while there is no free slot to run them in."""

from __future__ import annotations

import asyncio
import threading
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from nearline.errors import NearlineError
from retrieval.protocols.shard import ShardQueries

_O = TypeVar("_O")
_R = TypeVar("_R")


class _Entry(NamedTuple, Generic[_R]):
    queries: ShardQueries
    answer: Future[Sequence[_R]]
    deadline: float | None


class Batch(NamedTuple, Generic[_O, _R]):
    """Queries to answer together.

    deadline: Loop time that the most patient of them waits until.
    """

    queries: ShardQueries
    options: _O
    deadline: float | None
    entries: Sequence[_Entry[_R]]


class Batcher(Generic[_O, _R]):
    """Hands queries to a fixed number of runners (threads, or calls to a peer).

    A query goes at once where a slot is free: nothing ever waits for company. Where none is,
    queries wait, and a runner that has ended one batch takes the waiting ones with equal options
    as its next, the group that has waited longest. Runners take without a detour over the event
    loop, so that a thread does not stand idle while the loop is busy.

    Args:
        start: Starts a runner; it calls `take` until that gives None, and `finish`, on the event
            loop, with what became of each batch.
        slots: Runners at once.
        max_batch: Most queries in a batch; a larger request is cut.
        observe: Told the size of every batch.
    """

    def __init__(
        self,
        start: Callable[[], None],
        *,
        slots: int,
        max_batch: int,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._start = start
        self._max_batch = max_batch
        self._observe = observe
        # Guards what follows: the event loop adds, threads take.
        self._lock = threading.Lock()
        self._free = slots
        # Groups by options, in order of arrival.
        self._waiting: dict[_O, deque[_Entry[_R]]] = {}
        # Entries of a batch that failed: each is tried again by itself.
        self._alone: deque[tuple[_O, _Entry[_R]]] = deque()

    def submit(
        self, queries: ShardQueries, options: _O, deadline: float | None = None
    ) -> Future[Sequence[_R]]:
        """Asks for the results of some queries, one each, in order.

        An error of ours fails every query of its batch; any other error is taken for the fault of
        one query, and each is then tried by itself.

        Args:
            queries: At least one.
            options: Hashable; queries with equal options may share a batch.
            deadline: Loop time after which the answer is worth nothing; None: none.
        """
        most, count = self._max_batch, queries.count
        if count > most:
            cuts = range(0, count, most)
            parts = [self._enter(queries.part(at, at + most), options, deadline) for at in cuts]
            return asyncio.ensure_future(_joined(parts))
        return self._enter(queries, options, deadline)

    def _enter(
        self, queries: ShardQueries, options: _O, deadline: float | None
    ) -> Future[Sequence[_R]]:
        answer: Future[Sequence[_R]] = asyncio.get_running_loop().create_future()
        with self._lock:
            group = self._waiting.get(options)
            if group is None:
                group = self._waiting[options] = deque()
            group.append(_Entry(queries, answer, deadline))
        self._wake()
        return answer

    def take(self) -> Batch[_O, _R] | None:
        """Returns a runner its next batch; None ends the runner. May be called from any thread."""
        with self._lock:
            taken = self._next()
            if taken is None:
                self._free += 1
                return None
        options, entries = taken
        if len(entries) == 1:
            queries, _, deadline = entries[0]
        else:
            queries = ShardQueries.joined([entry.queries for entry in entries])
            deadlines = [entry.deadline for entry in entries]
            # The batch may take as long as its most patient query waits.
            deadline = None if None in deadlines else max(d for d in deadlines if d is not None)
        self._observe(queries.count)
        return Batch(queries, options, deadline, entries)

    def finish(
        self,
        batch: Batch[_O, _R],
        results: Sequence[_R] | None,
        error: BaseException | None = None,
    ) -> None:
        """Delivers the results of a batch, one per query, or its error; on the event loop."""
        if error is None:
            assert results is not None
            at = 0
            for queries, answer, _ in batch.entries:
                count = queries.count
                if not answer.done():
                    answer.set_result(results[at : at + count])
                at += count
        elif len(batch.entries) > 1 and not isinstance(error, NearlineError):
            with self._lock:
                self._alone.extend((batch.options, entry) for entry in batch.entries)
            self._wake()
        else:
            for entry in batch.entries:
                if not entry.answer.done():
                    entry.answer.set_exception(error)

    def _wake(self) -> None:
        with self._lock:
            if not self._free:
                return
            self._free -= 1
        self._start()

    def _next(self) -> tuple[_O, list[_Entry[_R]]] | None:
        while self._alone:
            options, entry = self._alone.popleft()
            if not entry.answer.done():
                return options, [entry]
        while self._waiting:
            options = next(iter(self._waiting))
            group = self._waiting[options]
            taken: list[_Entry[_R]] = []
            room = self._max_batch
            while group and group[0].queries.count <= room:
                entry = group.popleft()
                # Done already: cancelled, since its caller went away.
                if not entry.answer.done():
                    taken.append(entry)
                    room -= entry.queries.count
            if not group:
                del self._waiting[options]
            if taken:
                return options, taken
        return None


async def _joined(parts: Sequence[Future[Sequence[_R]]]) -> list[_R]:
    return [result for part in await asyncio.gather(*parts) for result in part]
