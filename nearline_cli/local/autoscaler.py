"""As many workers as the queue needs: processes of this machine, started and stopped as it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearline.clients import IngestClient
from nearline.contract import QueueState
from nearline.errors import NearlineError
from nearline_cli.local.scaling_policy import ScalingOptions, ScalingPolicy
from nearline_cli.local.supervisor import ProcessSpec, StateChange, SupervisedProcess

if TYPE_CHECKING:
    from nearline_cli.local.process_plan import ProcessPlan

_LOOK_EVERY_S = 1.0
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingEvent:
    """The number of workers was changed. before, after: How many; lag: What was to be done then."""

    before: int
    after: int
    lag: int
    reason: str


class WorkerPool:
    """Processes that are alike, as many as are wanted now; each is started again when it dies.

    Args:
        plan: Gives the process with a number, from 1.
        on_change: Called at every change of state.
        on_line: Called with the name and every line that a process logs.
    """

    def __init__(
        self,
        plan: Callable[[int], ProcessSpec],
        on_change: Callable[[StateChange], None],
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._on_change = on_change
        self._on_line = on_line
        # By number, oldest first; those that are ending have theirs until they are gone.
        self._running: dict[int, tuple[SupervisedProcess, asyncio.Task[None]]] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}

    @property
    def size(self) -> int:
        """How many there are, those that are starting included, those that are ending not."""
        return len(self._running)

    def resize(self, count: int) -> None:
        """Starts more, or tells the newest to end; waits for neither."""
        while self.size < count:
            number = 1
            while number in self._running or number in self._ending:
                number += 1
            keeper = SupervisedProcess(self._plan(number), self._on_change, self._on_line)
            self._running[number] = keeper, asyncio.create_task(keeper.keep())
        while self.size > count:
            number, (keeper, keeping) = self._running.popitem()
            self._ending[number] = asyncio.create_task(self._end(number, keeper, keeping))

    async def close(self) -> None:
        """Ends all of them, and waits for that."""
        self.resize(0)
        while self._ending:
            await asyncio.wait(self._ending.values())

    async def _end(
        self, number: int, keeper: SupervisedProcess, keeping: asyncio.Task[None]
    ) -> None:
        keeping.cancel()
        await asyncio.wait((keeping,))
        await keeper.stop()
        del self._ending[number]


class Autoscaler:
    """Keeps a pool at the size that the queue needs.

    Args:
        look: Gives the state of the queue. While it raises an error of ours the size stays.
        pool: The workers.
        policy: Says how many there should be.
        on_scaled: Called at every change of their number.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[QueueState]],
        pool: WorkerPool,
        policy: ScalingPolicy,
        on_scaled: Callable[[ScalingEvent], None],
    ) -> None:
        self._look = look
        self._pool = pool
        self._policy = policy
        self._on_scaled = on_scaled

    async def run(self) -> None:
        """Looks at the queue once a second, for ever."""
        while True:
            await self.step()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def step(self) -> None:
        """Looks at the queue once, and acts."""
        try:
            queue = await self._look()
        except NearlineError:
            self._policy.forget()
            return
        before = self._pool.size
        wanted = self._policy.decide(queue, before, asyncio.get_running_loop().time())
        if wanted.workers != before:
            self._on_scaled(
                ScalingEvent(
                    before=before, after=wanted.workers, lag=queue.lag, reason=wanted.reason
                )
            )
            self._pool.resize(wanted.workers)


@contextlib.asynccontextmanager
async def run_autoscaler(
    address: str,
    pool: WorkerPool,
    scaling: ScalingOptions,
    on_scaled: Callable[[ScalingEvent], None],
) -> AsyncIterator[None]:
    """Scales a pool for the length of the block, and ends its processes then.

    Args:
        address: Of the ingest service, which is asked for the state of the queue.
    """
    pool.resize(scaling.min_workers)
    async with IngestClient(address) as client:
        scaler = Autoscaler(
            lambda: client.queue(timeout_s=_ANSWER_S), pool, ScalingPolicy(scaling), on_scaled
        )
        running = asyncio.create_task(scaler.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait((running,))
            await pool.close()
            if not running.cancelled():
                running.result()


@contextlib.asynccontextmanager
async def run_workers(
    processes: ProcessPlan,
    scaling: ScalingOptions,
    on_change: Callable[[StateChange], None],
    on_line: Callable[[str, str], None],
    on_scaled: Callable[[ScalingEvent], None],
) -> AsyncIterator[None]:
    """Runs as many workers as the ingest queue needs for the duration of the block.

    Starts none if the plan has no queue, or `scaling` allows no worker.
    """
    if processes.worker is None or not scaling.max_workers:
        yield
        return
    pool = WorkerPool(processes.worker, on_change, on_line)
    async with run_autoscaler(processes.ingest[0].address, pool, scaling, on_scaled):
        yield
