"""Runs as many ingest workers as the queue needs."""

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
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingEvent:
    """A change of the number of workers.

    before, after: Number of workers. lag: Documents not yet processed.
    """

    before: int
    after: int
    lag: int
    reason: str


class WorkerPool:
    """A pool of identical processes of variable size; each is restarted when it dies.

    Args:
        plan: Returns the process with a number, from 1.
        on_change: Called at every state change.
        on_line: Called with the name of a process and each line that it logs.
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
        # By number, oldest first; a stopping process keeps its number until it has ended.
        self._running: dict[int, tuple[SupervisedProcess, asyncio.Task[None]]] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}

    @property
    def size(self) -> int:
        """Number of processes, including those that are starting, without those that are
        stopping.
        """
        return len(self._running)

    def resize(self, count: int) -> None:
        """Starts processes, or stops the newest ones; does not wait for them."""
        while self.size < count:
            number = 1
            while number in self._running or number in self._ending:
                number += 1
            process = SupervisedProcess(self._plan(number), self._on_change, self._on_line)
            self._running[number] = process, asyncio.create_task(process.keep())
        while self.size > count:
            number, (process, task) = self._running.popitem()
            self._ending[number] = asyncio.create_task(self._end(number, process, task))

    async def close(self) -> None:
        """Stops all processes, and waits until they have ended."""
        self.resize(0)
        if self._ending:
            ended, _ = await asyncio.wait(self._ending.values())
            for task in ended:
                task.result()

    async def _end(self, number: int, process: SupervisedProcess, task: asyncio.Task[None]) -> None:
        try:
            task.cancel()
            await asyncio.wait((task,))
            await process.stop()
        finally:
            del self._ending[number]


class Autoscaler:
    """Keeps a pool at the size that the queue needs.

    Args:
        look: Returns the state of the queue. While it raises a NearlineError, the size stays
            unchanged.
        pool: The workers.
        policy: Decides the number of workers.
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
        """Reads the queue once a second, forever."""
        while True:
            await self.step()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def step(self) -> None:
        """Reads the queue once, and resizes the pool."""
        try:
            queue = await self._look()
        except NearlineError:
            self._policy.forget()
            return
        before = self._pool.size
        decision = self._policy.decide(queue, before, asyncio.get_running_loop().time())
        if decision.workers != before:
            self._on_scaled(
                ScalingEvent(
                    before=before, after=decision.workers, lag=queue.lag, reason=decision.reason
                )
            )
            self._pool.resize(decision.workers)


@contextlib.asynccontextmanager
async def run_autoscaler(
    address: str,
    pool: WorkerPool,
    scaling: ScalingOptions,
    on_scaled: Callable[[ScalingEvent], None],
) -> AsyncIterator[None]:
    """Scales a pool for the duration of the block, then stops its processes.

    Args:
        address: Address of the ingest service, which reports the state of the queue.
        pool: The workers.
        scaling: Options of the scaling.
        on_scaled: Called at every change of the number of workers.
    """
    pool.resize(scaling.min_workers)
    async with IngestClient(address) as client:
        scaler = Autoscaler(
            lambda: client.queue(timeout_s=_TIMEOUT_S), pool, ScalingPolicy(scaling), on_scaled
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
