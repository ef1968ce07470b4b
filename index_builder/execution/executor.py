"""Where the work of a build is done: in this process, or by workers all over a cluster."""

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
    """One kind of work on many parts. It goes to other processes: all of it can be pickled.

    open: Opens what a worker needs, once; gives what works on a part. A part may be given to it
        twice, where a worker dies, so that working must not change anything that stays.
    at_once: Parts that a worker has in work at once.
    model: Whether a worker runs a model, and so needs several cores, or a GPU where there are any.
    """

    open: Callable[[], AbstractAsyncContextManager[Callable[[Part], Awaitable[Result]]]]
    concurrency: int = 4
    runs_model: bool = False


class Executor(Protocol):
    """Does the parts of a job."""

    def embedder(self, local: Embedder, info: EmbedderInfo) -> OpenEmbedder:
        """Says how a worker comes by an embedder: `here`, or one of its own of that fingerprint."""
        ...

    async def run(
        self, job: Job[Part, Result], parts: Iterable[Part], on_result: Callable[[Result], None]
    ) -> None:
        """Does the parts of a job.

        Args:
            job: The work.
            parts: Asked for as workers need them, not all at once.
            take: Given what came of each part, once, as it comes; in this process, on its loop.
        Raises: what working on a part raises; the parts in work are given up then.
        """
        ...


class LocalExecutor:
    """An `Executor` of one worker: this process, which asks services for what is heavy."""

    def embedder(self, local: Embedder, info: EmbedderInfo) -> OpenEmbedder:
        """Returns what there is here."""
        return lambda: contextlib.nullcontext(local)

    async def run(
        self, job: Job[Part, Result], parts: Iterable[Part], on_result: Callable[[Result], None]
    ) -> None:
        """Does the parts; see `Executor.run`."""
        left = iter(parts)

        async def work_on(work: Callable[[Part], Awaitable[Result]]) -> None:
            # One iterator for all: each takes the next part when it is free.
            for part in left:
                on_result(await work(part))

        async with job.open() as work:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(job.concurrency):
                        group.create_task(work_on(work))
            except BaseExceptionGroup as errors:
                # The first one ended the others.
                raise first_of(errors) from None
