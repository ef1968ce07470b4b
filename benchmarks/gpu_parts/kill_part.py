"""A GPU whose worker process is killed under load: no request may fail, and it must come back."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import psutil

from benchmarks.baselines.processes import single_process_pool
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.flat_snapshot import COLLECTION, write_flat_snapshot
from benchmarks.gpu_parts.random_data import random_texts, unit_vectors
from benchmarks.gpu_parts.session import DIM, K, Session
from nearline import contract as c
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import ServedBy, TextRole
from nearline.errors import NearlineError, NotReady
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import EMBEDDING_SERVICES, RETRIEVAL_SERVICES

_OPTIONS = c.SearchOptions(k=K, payload=frozenset())
_TOKENS = 20
_TIMEOUT_S = 10.0
# Of load before the kill, and after the GPU is back.
_CALM_S = 1.0
# What the commands of the workers contain.
_WORKERS = ("retrieval.index.gpu.worker", "embedding.gpu.worker", "stand_in WORKER")

Call = Callable[[int], Awaitable[ServedBy]]


@dataclass(slots=True)
class _Watch:
    """The replies that callers got.

    reasons: Replies of the CPU, by reason. errors: Failed requests, by message. killed, back: Times
    of the kill and of the first reply of the GPU after those of the CPU; 0 if there was none.
    """

    requests: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    killed: float = 0.0
    back: float = 0.0


async def measure_kill(session: Session) -> list[Figure]:
    """Kills the worker of a retrieval service, then that of an embedding service."""
    return [*await _kill_search(session), *await _kill_embedding(session)]


async def _kill_search(session: Session) -> list[Figure]:
    store = session.folder / "kill"
    queries = unit_vectors(256, DIM, session.seed)
    try:
        with single_process_pool() as data:
            await asyncio.get_running_loop().run_in_executor(
                data, write_flat_snapshot, store, session.sizes.kill_rows, DIM, session.seed
            )
        arguments = ["--store", str(store)]
        async with (
            session.service("retrieval", arguments, RETRIEVAL_SERVICES) as service,
            RetrievalClient(service.address) as client,
        ):

            async def search(number: int) -> ServedBy:
                query = c.Query(vector=queries[number % len(queries)])
                reply = await client.search(
                    query, _OPTIONS, collection=COLLECTION, timeout_s=_TIMEOUT_S
                )
                return reply.info.served_by

            return _figures("searches", session, await _watch(session, service.pid, search))
    finally:
        shutil.rmtree(store, ignore_errors=True)


async def _kill_embedding(session: Session) -> list[Figure]:
    texts = random_texts(256, _TOKENS, session.seed)
    precision = ["--precision", "f32"] if session.rehearsal else []
    async with (
        session.service("embedding", precision, EMBEDDING_SERVICES) as service,
        EmbeddingClient(service.address) as client,
    ):

        async def embed(number: int) -> ServedBy:
            text = texts[number % len(texts)]
            return (await client.embed([text], TextRole.QUERY, timeout_s=_TIMEOUT_S)).served_by

        return _figures("embedding", session, await _watch(session, service.pid, embed))


async def _watch(session: Session, pid: int, call: Call) -> _Watch:
    """Calls in an open loop, kills the worker of a service, and waits until the GPU is back."""
    loop = asyncio.get_running_loop()
    seen = _Watch()
    if (await call(0)).reason:
        raise NotReady("the GPU does not answer before the kill; see nearline doctor")
    worker = _worker(pid)
    end = asyncio.Event()

    async def send(number: int, due: float) -> None:
        try:
            served = await call(number)
        except NearlineError as error:
            seen.errors[error.message] += 1
            return
        finally:
            seen.requests += 1
            seen.latencies_s.append(loop.time() - due)
        if served.reason:
            seen.reasons[served.reason] += 1
        elif seen.reasons and not seen.back:
            seen.back = loop.time()

    def numbers() -> Iterator[int]:
        return itertools.takewhile(lambda _: not end.is_set(), itertools.count())

    async def kill() -> None:
        await asyncio.sleep(_CALM_S)
        seen.killed = loop.time()
        os.kill(worker, signal.SIGKILL)
        while not seen.back and loop.time() < seen.killed + session.sizes.back_s:
            await asyncio.sleep(0.05)
        await asyncio.sleep(_CALM_S)
        end.set()

    await asyncio.gather(run_open_loop(session.sizes.kill_rate, numbers(), send), kill())
    return seen


def _worker(pid: int) -> int:
    """Returns the process id of the worker of a service. Raises NotReady: it has none."""
    for child in psutil.Process(pid).children(recursive=True):
        command = " ".join(child.cmdline())
        if any(name in command for name in _WORKERS):
            return int(child.pid)
    raise NotReady("the service has no worker process for the GPU; see its log")


def _figures(what: str, session: Session, seen: _Watch) -> list[Figure]:
    by_cpu = seen.reasons.total()
    p99_ms = float(np.percentile(seen.latencies_s, 99)) * 1e3
    error = next(iter(seen.errors), "")
    return [
        Figure(
            name=f"{what} that failed",
            value=seen.errors.total(),
            bar=0,
            at_most=True,
            note=error
            or f"of {seen.requests:,} at {session.sizes.kill_rate:g}/s, p99 {p99_ms:.0f} ms",
        ),
        Figure(
            name=f"{what} by the CPU, with a reason",
            value=by_cpu,
            bar=1,
            note=next(iter(seen.reasons), "none"),
        ),
        Figure(
            name=f"{what}: seconds until the GPU was back",
            value=seen.back - seen.killed if seen.back else None,
            unit="s",
            note="" if seen.back else f"not within {session.sizes.back_s:g} s",
        ),
    ]
