"""Batches concurrent queries while all slots for running them are busy."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from nearline.errors import NearlineError, Overloaded
from nearline.tracing.spans import Carried, carried
from nearline.wait_times import WAITS
from retrieval.protocols import metrics
from retrieval.protocols.shard import ShardQueries

# Queries that may wait at a shard: several times those of the largest request.
MAX_WAITING = 16_384
_RETRY_AFTER_S = 0.25
_O = TypeVar("_O")
_R = TypeVar("_R")


class _Entry(NamedTuple, Generic[_R]):
    queries: ShardQueries
    answer: Future[Sequence[_R]]
    deadline: float | None
    submitted_s: float
    carried: Carried


class Batch(NamedTuple, Generic[_O, _R]):
    """Queries to answer together.

    deadline: Latest deadline of the queries, in loop time; None if a query has none.
    """

    queries: ShardQueries
    options: _O
    deadline: float | None
    entries: Sequence[_Entry[_R]]

    def abandoned(self) -> bool:
        """Returns whether no caller waits for an answer. Thread-safe."""
        return all(entry.answer.done() for entry in self.entries)


class Batcher(Generic[_O, _R]):
    """Distributes queries to a fixed number of runners (threads, or calls to a peer).

    If a slot is free, a query starts at once: it never waits for others to fill a batch. If not,
    it waits, and a runner that finishes a batch next takes the waiting queries with equal options,
    starting with the group that has waited longest. Runners take batches without going through the
    event loop, so threads do not idle while the loop is busy.

    Args:
        start: Starts a runner. The runner calls `take` until that returns None, and reports each
            batch with `finish` on the event loop.
        slots: Maximum number of concurrent runners.
        max_batch: Maximum number of queries of several requests in a batch.
        max_part: Maximum number of queries of one request in a batch; larger requests are split.
            Optional; None: as many as of several.
        max_waiting: Queries that may wait; further ones are refused.
        observe: Called with the size of every batch.
    """

    def __init__(
        self,
        start: Callable[[], None],
        *,
        slots: int,
        max_batch: int,
        max_part: int | None = None,
        max_waiting: int = MAX_WAITING,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._start = start
        self._max_batch = max_batch
        self._max_part = max_part or max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        # Guards the fields below: the event loop adds queries, threads take them.
        self._lock = threading.Lock()
        self._free = slots
        # By options, in order of arrival.
        self._waiting: dict[_O, deque[_Entry[_R]]] = {}
        # Number of queries in `_waiting`.
        self._waiting_count = 0
        # Entries of failed batches; each is retried in its own batch.
        self._retries: deque[tuple[_O, _Entry[_R]]] = deque()

    def submit(
        self, queries: ShardQueries, options: _O, deadline: float | None = None
    ) -> Future[Sequence[_R]]:
        """Submits queries; the future returns one result per query, in order.

        A `NearlineError` fails every query of its batch. Any other error is assumed to be caused by
        one of the queries, and each is then retried in a batch of its own. If too many queries are
        waiting, the future fails with Overloaded.

        Args:
            queries: At least one.
            options: Hashable; queries with equal options may share a batch.
            deadline: Loop time after which the answer is useless; None if there is no limit.
        """
        size, count = self._max_part, queries.count
        if self._waiting_count + count > self._max_waiting:
            waiting = self._count_waiting()
            # An empty queue admits any request.
            if waiting and waiting + count > self._max_waiting:
                return _refused(waiting, count, self._max_waiting)
        if count > size:
            starts = range(0, count, size)
            parts = [self._add(queries.part(at, at + size), options, deadline) for at in starts]
            return asyncio.ensure_future(_concatenate(parts))
        return self._add(queries, options, deadline)

    def _add(
        self, queries: ShardQueries, options: _O, deadline: float | None
    ) -> Future[Sequence[_R]]:
        answer: Future[Sequence[_R]] = asyncio.get_running_loop().create_future()
        with self._lock:
            group = self._waiting.get(options)
            if group is None:
                group = self._waiting[options] = deque()
            group.append(_Entry(queries, answer, deadline, time.monotonic(), carried()))
            self._waiting_count += queries.count
        self._start_runner()
        return answer

    def take(self) -> Batch[_O, _R] | None:
        """Returns the next batch for a runner; None ends the runner. Thread-safe."""
        with self._lock:
            group = self._next_group()
            if group is None:
                self._free += 1
                return None
        options, entries = group
        if len(entries) == 1:
            queries, _, deadline, *_ = entries[0]
        else:
            queries = ShardQueries.concatenate([entry.queries for entry in entries])
            deadlines = [entry.deadline for entry in entries]
            # The batch may run until the latest deadline of its queries.
            deadline = None if None in deadlines else max(d for d in deadlines if d is not None)
        self._observe(queries.count)
        waited_s = time.monotonic() - entries[-1].submitted_s
        WAITS.note(self, waited_s)
        metrics.thread_wait_seconds.observe(waited_s)
        return Batch(queries, options, deadline, entries)

    def finish(
        self,
        batch: Batch[_O, _R],
        results: Sequence[_R] | None,
        error: BaseException | None = None,
    ) -> None:
        """Delivers the results of a batch, one per query, or its error; runs on the event loop."""
        if error is None:
            assert results is not None
            at = 0
            for queries, answer, *_ in batch.entries:
                count = queries.count
                if not answer.done():
                    answer.set_result(results[at : at + count])
                at += count
        elif len(batch.entries) > 1 and not isinstance(error, NearlineError):
            with self._lock:
                self._retries.extend((batch.options, entry) for entry in batch.entries)
            self._start_runner()
        else:
            for entry in batch.entries:
                if not entry.answer.done():
                    entry.answer.set_exception(error)

    def _start_runner(self) -> None:
        with self._lock:
            if not self._free:
                return
            self._free -= 1
        self._start()

    def _next_group(self) -> tuple[_O, list[_Entry[_R]]] | None:
        while self._retries:
            options, entry = self._retries.popleft()
            if not entry.answer.done():
                return options, [entry]
        while self._waiting:
            options = next(iter(self._waiting))
            group = self._waiting[options]
            taken: list[_Entry[_R]] = []
            room = self._max_batch
            # A part of a large request may be larger than a batch; it then runs alone.
            while group and (not taken or group[0].queries.count <= room):
                entry = group.popleft()
                self._waiting_count -= entry.queries.count
                # An entry that is already done was cancelled by its caller.
                if not entry.answer.done():
                    taken.append(entry)
                    room -= entry.queries.count
            if not group:
                del self._waiting[options]
            if taken:
                return options, taken
        return None

    def _count_waiting(self) -> int:
        """Returns the number of waiting queries, without those whose callers were cancelled."""
        with self._lock:
            groups = {
                options: deque(entry for entry in group if not entry.answer.done())
                for options, group in self._waiting.items()
            }
            self._waiting = {options: group for options, group in groups.items() if group}
            self._waiting_count = sum(
                entry.queries.count for group in self._waiting.values() for entry in group
            )
            return self._waiting_count


def _refused(waiting: int, count: int, limit: int) -> Future[Sequence[_R]]:
    answer: Future[Sequence[_R]] = asyncio.get_running_loop().create_future()
    answer.set_exception(
        Overloaded(
            f"{waiting:,} queries wait for this shard and {count:,} more were sent; {limit:,} may "
            "wait; retry later, or add replicas",
            retry_after_s=_RETRY_AFTER_S,
        )
    )
    return answer


async def _concatenate(parts: Sequence[Future[Sequence[_R]]]) -> list[_R]:
    try:
        return [result for part in await asyncio.gather(*parts) for result in part]
    finally:
        # After an error, the other parts are not needed.
        for part in parts:
            part.cancel()
