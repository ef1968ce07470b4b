"""An executor over Ray Data, with a pool of actors.

Ray Data restarts an actor that dies and passes its parts to another, without a limit: both are its
defaults for actors (max_restarts and max_task_retries are -1). Ray is imported only where a cluster
is opened, since it reads its settings on import.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pickle
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from typing import Any

import pyarrow as pa

from index_builder.execution.executor import Job, OpenEmbedder, Part, Result
from nearline.contract import Embedder, EmbedderInfo
from nearline.errors import NearlineError, NotReady, SnapshotMismatch

# Opens an embedder in a worker, given the number of cores and whether it has a GPU.
OpenModel = Callable[[int, bool], AbstractAsyncContextManager[Embedder]]
# More cores hardly speed up a model, and every further model takes half a gigabyte.
_MODEL_CPUS = 4
# Maximum number of workers that only call services; more would overload them.
_CALLING_WORKERS = 4
# Bytes of parts per call of Ray. Actors are started for each window: seconds in a quarter of an
# hour. The object store holds a window, or spills it to disk.
_WINDOW_BYTES = 256 << 20
_OUTCOMES = pa.schema([("outcome", pa.large_binary())])


class RayExecutor:
    """An `Executor` over the Ray cluster of this process; see `cluster`.

    Args:
        open_model: Opens an embedder in a worker.
        gpu_share: GPUs of a worker with a model, if the cluster has some: a fraction, by which
            workers share one, or a whole number; 0 if workers use none.
    """

    def __init__(self, open_model: OpenModel, *, gpu_share: float = 1.0) -> None:
        self._open_model = open_model
        self._gpu_share = gpu_share

    def embedder(self, local: Embedder, info: EmbedderInfo) -> OpenEmbedder:
        """Returns a model in each worker's process, checked to have the same fingerprint."""
        cpus, gpus = _worker_resources(self._gpu_share)
        return functools.partial(_checked, self._open_model, cpus, gpus > 0, info.fingerprint)

    async def run(
        self, job: Job[Part, Result], parts: Iterable[Part], on_result: Callable[[Result], None]
    ) -> None:
        """Runs the parts; see `Executor.run`."""
        remaining = (pickle.dumps(part) for part in parts)
        while window := await asyncio.to_thread(_window, remaining):
            blocks = _outcomes(job, window, self._gpu_share)
            try:
                while (block := await asyncio.to_thread(_next, blocks)) is not None:
                    for packed in block.column("outcome"):
                        outcome = pickle.loads(packed.as_py())
                        if isinstance(outcome, NearlineError):
                            raise outcome
                        on_result(outcome)
            finally:
                # Workers hold their cores until the generator is closed. If the garbage collector
                # closes it in a thread of Ray, the cores are never released.
                await asyncio.to_thread(_close, blocks)


def _worker_resources(gpu_share: float) -> tuple[int, float]:
    """Returns the number of cores of a worker with a model, and its GPUs."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # A cluster that scales on demand may have no node yet.
    widest = max((int(node.get("CPU", 0)) for node in nodes), default=0) or _MODEL_CPUS
    on_gpu = any(node.get("GPU", 0) >= max(gpu_share, 1) for node in nodes)
    return min(widest, _MODEL_CPUS), gpu_share if on_gpu else 0.0


def _outcomes(
    job: Job[Part, Result], window: Sequence[bytes], gpu_share: float
) -> Generator[pa.Table, None, None]:
    """Starts the work on pickled parts; returns pickled outcomes in order of arrival."""
    import ray.data

    cpus, gpus = _worker_resources(gpu_share) if job.runs_model else (1, 0.0)
    size = job.concurrency
    blocks = [window[first : first + size] for first in range(0, len(window), size)]
    tables = [pa.table({"part": pa.array(block, pa.large_binary())}) for block in blocks]
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=None if job.runs_model else _CALLING_WORKERS
    )
    worked = ray.data.from_arrow(tables).map_batches(
        _Worker,
        fn_constructor_args=(job,),
        batch_size=size,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    found: Generator[pa.Table, None, None] = iter(
        worked.iter_batches(batch_size=None, batch_format="pyarrow")
    )
    return found


class _Worker:
    """An actor that opens the job once and processes the parts of a block concurrently."""

    def __init__(self, job: Job[Any, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._opened = job.open()
        self._refusal: NearlineError | None = None
        try:
            self._work = self._loop.run_until_complete(self._opened.__aenter__())
        except NearlineError as error:
            # The error is returned as an outcome; raised here, it would look like a failure of the
            # cluster.
            self._refusal = error

    def __call__(self, block: pa.Table) -> pa.Table:
        if self._refusal is not None:
            outcomes: list[object] = [self._refusal]
        else:
            parts = [pickle.loads(packed.as_py()) for packed in block.column("part")]
            outcomes = self._loop.run_until_complete(_together(self._work, parts))
        return pa.table([[pickle.dumps(one) for one in outcomes]], schema=_OUTCOMES)


async def _together(
    work: Callable[[Any], Awaitable[object]], parts: Sequence[object]
) -> list[object]:
    """Returns the outcome of each part: a result or a NearlineError."""
    outcomes = await asyncio.gather(*map(work, parts), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, NearlineError):
            raise outcome
    return outcomes


@contextlib.asynccontextmanager
async def _checked(
    open_model: OpenModel, cpus: int, gpu: bool, fingerprint: str
) -> AsyncIterator[Embedder]:
    async with open_model(cpus, gpu) as embedder:
        found = (await embedder.info()).fingerprint
        if found != fingerprint:
            raise SnapshotMismatch(
                f"the workers of the Ray cluster have a model with fingerprint {found}, the "
                f"embedding service one with {fingerprint}; configure the same model for both with "
                "NEARLINE_EMBEDDING_MODEL"
            )
        yield embedder


def _window(remaining: Iterator[bytes]) -> list[bytes]:
    window, size = [], 0
    for packed in remaining:
        window.append(packed)
        size += len(packed)
        if size >= _WINDOW_BYTES:
            break
    return window


def _close(blocks: Generator[pa.Table, None, None]) -> None:
    """Stops the remaining work."""
    # An interruption leaves a thread waiting for the next block; it ends with Ray.
    with contextlib.suppress(ValueError):
        blocks.close()


def _next(blocks: Iterator[pa.Table]) -> pa.Table | None:
    import ray.exceptions

    try:
        return next(blocks, None)
    except ray.exceptions.RayTaskError:
        raise  # A bug in our code, with its traceback.
    except ray.exceptions.RayError as error:
        raise NotReady(
            f"the Ray cluster failed: {error}; run the same command again to resume"
        ) from error
