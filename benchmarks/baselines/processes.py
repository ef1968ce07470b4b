"""Baseline servers and helper processes of benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.workloads.closed_loop import SearchTask
from benchmarks.workloads.process_memory import memory
from benchmarks.workloads.retrieval_dataset import index_file
from nearline.errors import NotReady
from nearline_cli.local.ports import reserve_port
from nearline_cli.local.processes import RETRIEVAL_SERVICES, SHARD_SERVICES, service_process
from nearline_cli.local.router_count import router_core
from nearline_cli.terminal.options import DEFAULT_HOST


class MinimalServer(NamedTuple):
    """A server of the folder `benchmarks`: its address, and the id of its process."""

    address: str
    pid: int


@contextlib.asynccontextmanager
async def minimal_server(module: str, *arguments: str) -> AsyncIterator[MinimalServer]:
    """Runs a server of the folder `benchmarks` for the duration of the block.

    Raises: NotReady: The server ended at start.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise NotReady("the minimal server ended at start; its output is above")
        yield MinimalServer(address, process.pid)
    finally:
        # The server stops when its input closes, even if this process is killed.
        process.stdin.close()
        await process.wait()


def floor_process(task: SearchTask) -> AbstractAsyncContextManager[MinimalServer]:
    """Runs the floor server over the index of a task for the duration of the block."""
    return minimal_server(
        "benchmarks.baselines.floor_server",
        *("--threads", str(task.threads)),
        *("--index", str(index_file(task)), "--ids", str(task.ids)),
    )


def single_process_pool() -> ProcessPoolExecutor:
    """Returns a pool of one process, spawned so that it inherits no threads and no memory."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


async def run_in(pool: ProcessPoolExecutor, what: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function in the process of a pool; returns its result."""
    return await asyncio.get_running_loop().run_in_executor(pool, partial(what, *arguments))


class RunningRouter(NamedTuple):
    """Routers on one port: their address, and the ids of the processes; a router's is the last."""

    address: str
    pids: list[int]

    def router_rss_bytes(self) -> int:
        """Returns the resident memory of one router alone."""
        return self._replace(pids=self.pids[-1:]).rss_bytes()

    def rss_bytes(self) -> int:
        """Returns the resident memory of the processes; pages that they share count in each."""
        return sum(memory(pid, "VmRSS") for pid in self.pids)


@contextlib.asynccontextmanager
async def router_process(
    arguments: Sequence[str],
    separate_shards: int,
    processes: int = 1,
    router_arguments: Sequence[str] = (),
    routers: int = 1,
) -> AsyncIterator[RunningRouter]:
    """Runs routers, and the processes of their shards, for the duration of the block.

    Args:
        arguments: Arguments of every service.
        separate_shards: Shards that separate processes hold; 0 keeps them in the router.
        processes: Number of these processes.
        router_arguments: Further arguments of the routers.
        routers: Number of router processes, on one port, on the cores that `nearline up` would
            choose.
    """
    async with contextlib.AsyncExitStack() as stack:
        pids: list[int] = []
        topology: tuple[str, ...] = ()
        if separate_shards:
            held: list[str] = []
            for place in range(min(processes, separate_shards)):
                numbers = range(place, separate_shards, processes)
                own = (*arguments, "--shard", ",".join(map(str, numbers)))
                shard = await stack.enter_async_context(
                    service_process("retrieval.shard_server", own, ready_services=SHARD_SERVICES)
                )
                pids.append(shard.pid)
                held += [f"{number}={shard.address}" for number in numbers]
            topology = ("--shards", ";".join(held))
        words = (*arguments, *topology, *router_arguments)
        if routers > 1:
            shared = stack.enter_context(reserve_port(DEFAULT_HOST, 0))
            words += ("--reuse-port", "true", "--port", str(shared.getsockname()[1]))
        for number in range(routers):
            router = await stack.enter_async_context(
                service_process(
                    "retrieval",
                    words,
                    ready_services=RETRIEVAL_SERVICES,
                    core=router_core(number, routers),
                )
            )
            pids.append(router.pid)
        yield RunningRouter(router.address, pids)
