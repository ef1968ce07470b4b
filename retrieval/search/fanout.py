"""Fan-out: gathers the answers of several shards, tolerating shards that fail or are late."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Awaitable, Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import Generic, NamedTuple, TypeVar

from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    NearlineError,
    NotApplied,
    NotFound,
    NotReady,
    Overloaded,
    ShardsUnavailable,
    SnapshotGone,
)
from retrieval.protocols.candidates import ShardCandidates, StoredHistory
from retrieval.protocols.shard import ShardCounts, ShardItems, ShardSuggestions
from retrieval.search.request_context import RequestContext

_R = TypeVar("_R")
_ReadResult = TypeVar(
    "_ReadResult", ShardItems, ShardCounts, ShardSuggestions, ShardCandidates, StoredHistory
)
# Read only after a shard has released the snapshot, so other requests do not pay for it.
_gone_tolerated: ContextVar[bool] = ContextVar("gone_tolerated", default=False)
# The shard is away, slow or behind: the others can still answer. Any other error would occur on
# every shard, or is a bug, and is raised.
_TOLERATED = (NotReady, DeadlineExceeded, Overloaded, InternalError, SnapshotGone, NotFound)


class FanoutResult(NamedTuple, Generic[_R]):
    """Answers that came in time and errors of the other shards, both by shard number."""

    results: dict[int, _R]
    failures: dict[int, NearlineError]


@contextlib.contextmanager
def tolerate_missing_snapshot() -> Iterator[None]:
    """Within the block, a shard without the snapshot lowers coverage, like an unavailable shard.

    Use it for requests that were already retried as a whole: another retry would not help.
    """
    token = _gone_tolerated.set(True)
    try:
        yield
    finally:
        _gone_tolerated.reset(token)


async def gather(
    calls: Mapping[int, Future[_R]], deadline: float | None, *, collection: str, full: bool
) -> FanoutResult[_R]:
    """Waits for shards until all have answered or the deadline is reached.

    Args:
        calls: Running calls by shard number; at least one.
        deadline: Loop time to stop waiting at; None waits without limit.
        collection: Name, for errors.
        full: Whether to raise if any shard fails.
    Raises: ShardsUnavailable, NotApplied, DeadlineExceeded: no shard answered, or `full` is set
        and one did not. SnapshotGone: a shard has released the snapshot, so the whole request
        must be retried (see `tolerate_missing_snapshot`). Errors of a shard that are not about
        the shard itself.
    """
    await _settle(calls.values(), deadline)
    results: dict[int, _R] = {}
    failures: dict[int, NearlineError] = {}
    fatal: BaseException | None = None
    for number, future in calls.items():
        if future.cancelled():
            failures[number] = DeadlineExceeded("no answer in time")
        elif (error := future.exception()) is None:
            results[number] = future.result()
        elif isinstance(error, SnapshotGone) and not _gone_tolerated.get():
            fatal = fatal or error
        elif isinstance(error, _TOLERATED):
            failures[number] = error
        else:
            # Continue with the other futures, because asyncio logs exceptions that are never
            # retrieved.
            fatal = fatal or error
    if fatal is not None:
        raise fatal
    if failures and (full or not results):
        raise _unavailable(collection, len(calls), failures)
    return FanoutResult(results, failures)


async def gather_reads(
    calls: Mapping[int, Awaitable[_ReadResult]],
    context: RequestContext,
    *,
    collection: str,
    full: bool = False,
    until: float | None = None,
) -> FanoutResult[_ReadResult]:
    """Gathers reads until the deadline of a request; see `gather`.

    The context records failed shards and the progress of live changes in the others.

    Args:
        until: Loop time to stop waiting at, if before the deadline. Optional.
    """
    futures = {number: asyncio.ensure_future(call) for number, call in calls.items()}
    end = context.deadline if until is None else until
    answers = await gather(futures, end, collection=collection, full=full)
    context.failures.update(answers.failures)
    for number, result in answers.results.items():
        context.record_applied(number, (result.applied,))
    return answers


async def read_if_possible(
    call: Awaitable[_ReadResult],
    number: int,
    context: RequestContext,
    *,
    collection: str,
    until: float | None,
) -> _ReadResult | None:
    """Returns the answer of one shard, or None if it is away, which the context records.

    until: As in `gather_reads`.
    """
    try:
        answers = await gather_reads({number: call}, context, collection=collection, until=until)
    except (ShardsUnavailable, DeadlineExceeded, Overloaded, NotApplied) as error:
        context.failures[number] = error
        return None
    return answers.results[number]


async def _settle(futures: Collection[Future[_R]], deadline: float | None) -> None:
    """Waits until all futures are done; cancels the others at the deadline."""
    task = asyncio.current_task()
    timer = None
    if deadline is not None:
        timer = asyncio.get_running_loop().call_at(deadline, _cancel, futures)
    try:
        # The futures run concurrently, so waiting for them one by one takes no longer.
        for future in futures:
            if not future.done():
                with contextlib.suppress(Exception):
                    await _until_done(future, task)
    except asyncio.CancelledError:
        _cancel(futures)
        raise
    finally:
        if timer is not None:
            timer.cancel()


async def _until_done(future: Future[_R], task: asyncio.Task[object] | None) -> None:
    try:
        await future
    except asyncio.CancelledError:
        # Either the deadline cancelled the future, or the caller cancelled this task.
        if task is not None and task.cancelling():
            raise


def _cancel(futures: Collection[Future[_R]]) -> None:
    for future in futures:
        future.cancel()


def _unavailable(
    collection: str, shards: int, failures: Mapping[int, NearlineError]
) -> NearlineError:
    reasons = "; ".join(f"shard {number}: {error}" for number, error in failures.items())
    text = f"{len(failures)} of {shards} shards of {collection!r} did not answer ({reasons})"
    if len(failures) == shards:
        if all(isinstance(error, DeadlineExceeded) for error in failures.values()):
            return DeadlineExceeded(f"{text}; raise the timeout or lower the load")
        if all(isinstance(error, SnapshotGone) for error in failures.values()):
            return SnapshotGone(f"{text}; retry the whole request")
    retry = [error.retry_after_s for error in failures.values() if error.retry_after_s is not None]
    retry_after_s = max(retry, default=None)
    if len(failures) == shards and all(isinstance(e, Overloaded) for e in failures.values()):
        return Overloaded(f"{text}; retry later", retry_after_s=retry_after_s)
    if all(isinstance(error, NotApplied) for error in failures.values()):
        return NotApplied(
            f"{text}; retry, omit min_watermark, or do without full coverage",
            retry_after_s=retry_after_s,
        )
    return ShardsUnavailable(
        f"{text}; wait until `nearline status` shows them ready, or do without full coverage",
        retry_after_s=retry_after_s,
        peer_died=any(error.peer_died for error in failures.values()),
    )
