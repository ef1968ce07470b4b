"""Executors of batch work: the protocol, and the executor in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from nearline.contract import Embedder, EmbedderInfo
from nearline.errors import first_of

Part = TypeVar("Part")
Result = TypeVar("Result")
OpenEmbedder = Callable[[], AbstractAsyncContextManager[Embedder]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[Part, Result]):
    """A kind of work on many parts; it must be picklable, as it is sent to other processes.

    open: Opens the resources of a worker once and yields a function that processes a part. A part
        may be processed twice if a worker dies, so processing must have no lasting side effects.
    concurrency: Parts that a worker processes at once.
    runs_model: Whether a worker runs a model, and so needs several cores, or a GPU if available.
    """

    open: Callable[[], AbstractAsyncContextManager[Callable[[Part], Awaitable[Result]]]]
    concurrency: int = 4
    runs_model: bool = False


class Executor(Protocol):
    """Runs the parts of a job."""

    def embedder(self, local: Embedder, info: EmbedderInfo) -> OpenEmbedder:
        """Returns how a worker opens an embedder: `local`, or a model with that fingerprint."""
        ...

    async def run(
        self, job: Job[Part, Result], parts: Iterable[Part], on_result: Callable[[Result], None]
    ) -> None:
        """Does the parts of a job.

        Args:
            job: The work.
            parts: Consumed as workers need them, not all at once.
            on_result: Called with each result as it arrives, on the event loop of this process.
        Raises: Errors from processing a part; the parts in progress are then abandoned.
        """
        ...


class LocalExecutor:
    """An `Executor` with one worker in this process; services do the heavy work."""

    def embedder(self, local: Embedder, info: EmbedderInfo) -> OpenEmbedder:
        """Returns the local embedder."""
        return lambda: contextlib.nullcontext(local)

    async def run(
        self, job: Job[Part, Result], parts: Iterable[Part], on_result: Callable[[Result], None]
    ) -> None:
        """Runs the parts; see `Executor.run`."""
        remaining = iter(parts)

        async def work_on(work: Callable[[Part], Awaitable[Result]]) -> None:
            # All tasks share the iterator: a free task takes the next part.
            for part in remaining:
                on_result(await work(part))

        async with job.open() as work:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(job.concurrency):
                        group.create_task(work_on(work))
            except BaseExceptionGroup as errors:
                # The first error ended the other tasks.
                raise first_of(errors) from None
