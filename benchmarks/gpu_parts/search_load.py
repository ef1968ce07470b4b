"""Load of batched searches on routers with a GPU."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.gpu_parts.callers import Callers, Load
from benchmarks.gpu_parts.flat_snapshot import COLLECTION, FlatSnapshot
from benchmarks.gpu_parts.session import K, Session, metric_total
from nearline import contract as c, wire
from nearline.errors import NotReady
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack
from nearline_cli.local.processes import RETRIEVAL_SERVICES, ServiceProcess, free_port

OPTIONS = c.SearchOptions(k=K, payload=frozenset())
_METHOD = "/nearline.v1.RetrievalService/SearchBatch"
_BATCHES = "nearline_retrieval_gpu_batch_queries"


class _Router(NamedTuple):
    service: ServiceProcess
    metrics_port: int


class RouterLoad(NamedTuple):
    """A measured load.

    batch: Queries of a call of the device, on average. cores: Those that the
    routers and their workers kept busy.
    """

    qps: float
    batch: float
    cores: float
    load: Load

    def about(self) -> str:
        """Returns what describes the load."""
        return (
            f"{self.batch:.0f} queries a call of the GPU, p99 {self.load.percentile_ms(99):.0f} ms "
            f"a request, {self.cores:.1f} cores of routers"
        )


class RunningRouters(NamedTuple):
    """Routers, and what is searched."""

    session: Session
    callers: Callers
    routers: Sequence[_Router]
    queries: NDArray[np.float32]

    async def run(self, options: c.SearchOptions, seconds: float) -> RouterLoad:
        """Searches in a closed loop. Raises NotReady: the CPU answered."""
        batch = self.session.sizes.batch
        message = wire.options_to_proto(options)
        requests = [
            retrieval_pb2.SearchBatchRequest(
                collection=COLLECTION,
                queries=[
                    retrieval_pb2.Query(vector=pack(row)) for row in self.queries[at : at + batch]
                ],
                options=message,
            ).SerializeToString()
            for at in range(0, len(self.queries), batch)
        ]
        before = await self._spent()
        load = await self.callers.closed_loop(
            [one.service.address for one in self.routers],
            _METHOD,
            requests,
            self.session.sizes.in_flight,
            seconds,
        )
        calls, asked, cpu_s, clock_s = (
            now - was for now, was in zip(await self._spent(), before, strict=True)
        )
        for reply in load.replies.values():
            info = retrieval_pb2.SearchBatchResponse.FromString(reply).info
            if info.served_by.reason or (options.exact and not info.cost.gpu):
                raise NotReady(
                    f"the CPU answered in place of the GPU: {info.served_by.reason or 'no reason'};"
                    " see nearline doctor"
                )
        if not calls:
            raise NotReady("no search reached the GPU; see nearline doctor")
        return RouterLoad(load.per_s * batch, asked / calls, cpu_s / clock_s, load)

    async def _spent(self) -> tuple[float, float, float, float]:
        """Returns the calls of the device, their queries, and seconds of CPU and of the clock."""
        calls = asked = cpu_s = 0.0
        for service, port in self.routers:
            calls += await asyncio.to_thread(metric_total, port, f"{_BATCHES}_count")
            asked += await asyncio.to_thread(metric_total, port, f"{_BATCHES}_sum")
            main = psutil.Process(service.pid)
            times = [one.cpu_times() for one in (main, *main.children(recursive=True))]
            cpu_s += sum(one.user + one.system for one in times)
        return calls, asked, cpu_s, asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def running_routers(
    session: Session,
    snapshot: FlatSnapshot,
    callers: Callers,
    queries: NDArray[np.float32],
    count: int,
) -> AsyncIterator[RunningRouters]:
    """Runs routers for the duration of the block, and warms them up."""
    async with contextlib.AsyncExitStack() as stack:
        starts = [_router(session, snapshot) for _ in range(count)]
        running = await asyncio.gather(*map(stack.enter_async_context, starts))
        searches = RunningRouters(session, callers, running, queries)
        await searches.run(OPTIONS, 1.0)
        yield searches


@contextlib.asynccontextmanager
async def _router(session: Session, snapshot: FlatSnapshot) -> AsyncIterator[_Router]:
    port = free_port()
    arguments = ["--store", str(snapshot.store), "--metrics-port", str(port)]
    # The default allows 200 queries of a request over ten million vectors.
    arguments += ["--max-comparisons", str(10**12)]
    async with session.service("retrieval", arguments, RETRIEVAL_SERVICES) as router:
        yield _Router(router, port)
