"""Asks several shards at once: who answered in time, who did not, and what that means."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Collection, Iterator, Mapping
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

_R = TypeVar("_R")
# Looked at only where a shard has let go of the snapshot, so it costs other requests nothing.
_gone_tolerated: ContextVar[bool] = ContextVar("gone_tolerated", default=False)
# The shard is away, slow or behind: the others can still answer. Any other class would fail alike
# on every shard, or is a bug, and is raised.
_TOLERATED = (NotReady, DeadlineExceeded, Overloaded, InternalError, SnapshotGone, NotFound)


class FanoutResult(NamedTuple, Generic[_R]):
    """What came in time, and why the rest did not; both by shard number."""

    results: dict[int, _R]
    failures: dict[int, NearlineError]


@contextlib.contextmanager
def tolerate_missing_snapshot() -> Iterator[None]:
    """Within the block a shard without the snapshot lowers coverage, like one that is away.

    For a request that was asked whole again already: asking a third time would not help.
    """
    token = _gone_tolerated.set(True)
    try:
        yield
    finally:
        _gone_tolerated.reset(token)


async def gather(
    calls: Mapping[int, Future[_R]], deadline: float | None, *, collection: str, full: bool
) -> FanoutResult[_R]:
    """Waits for shards until all have answered or the deadline is near.

    Args:
        calls: What was asked, by shard number; at least one.
        deadline: Time of the loop to stop waiting at; None: no limit.
        collection: Name, for errors.
        full: Raise rather than go on without a shard.
    Raises: ShardsUnavailable, NotApplied, DeadlineExceeded: no shard answered, or `full` and one
        did not. SnapshotGone: a shard has let go of the snapshot, so the request is to be asked
        whole again (see `tolerate_missing_snapshot`). Whatever a shard says that is not about
        itself.
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
            # Look at the others all the same: asyncio reports errors that nobody looked at.
            fatal = fatal or error
    if fatal is not None:
        raise fatal
    if failures and (full or not results):
        raise _unavailable(collection, len(calls), failures)
    return FanoutResult(results, failures)


async def _settle(futures: Collection[Future[_R]], deadline: float | None) -> None:
    """Waits until all are done; those that are not at the deadline are cancelled."""
    task = asyncio.current_task()
    timer = None
    if deadline is not None:
        timer = asyncio.get_running_loop().call_at(deadline, _cancel, futures)
    try:
        # They run at the same time, so waiting for one after the other takes no longer.
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
        # Ours if the deadline cancelled the future, the caller's if somebody cancels this task.
        if task is not None and task.cancelling():
            raise


def _cancel(futures: Collection[Future[_R]]) -> None:
    for future in futures:
        future.cancel()


def _unavailable(
    collection: str, asked: int, failures: Mapping[int, NearlineError]
) -> NearlineError:
    reasons = "; ".join(f"shard {number}: {error}" for number, error in failures.items())
    text = f"{len(failures)} of {asked} shards of {collection!r} did not answer ({reasons})"
    if len(failures) == asked:
        if all(isinstance(error, DeadlineExceeded) for error in failures.values()):
            return DeadlineExceeded(f"{text}; raise the timeout or lower the load")
        if all(isinstance(error, SnapshotGone) for error in failures.values()):
            return SnapshotGone(f"{text}; retry the whole request")
    retry = [error.retry_after_s for error in failures.values() if error.retry_after_s is not None]
    retry_after_s = max(retry, default=None)
    if all(isinstance(error, NotApplied) for error in failures.values()):
        return NotApplied(
            f"{text}; ask again, leave min_watermark out, or do without full coverage",
            retry_after_s=retry_after_s,
        )
    return ShardsUnavailable(
        f"{text}; wait until `nearline status` shows them ready, or do without full coverage",
        retry_after_s=retry_after_s,
    )
