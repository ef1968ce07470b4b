"""The embedding model and the models of text pairs on GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from embedding.backend import (
    Backend,
    Engine,
    Item_contra,
    PaddedBackend,
    TokenBatch,
    round_up,
    unpad,
)
from embedding.devices import CPU_BATCH_TOKENS
from embedding.gpu.pool import GpuPool
from embedding.pairs import TextPair, pack_pairs
from nearline.errors import NotReady


class CpuFallback(Generic[Item_contra]):
    """Runs a batch on GPUs, or if none answers, on the CPU, in batches of 512 tokens.

    budget: Padded tokens that keep the CPU busy.

    Args:
        pool: The GPUs.
        cpu: The same model on the CPU; it stays loaded, because loading takes longer than most
            requests can wait. None: a batch fails if no GPU answers.
    """

    def __init__(self, pool: GpuPool, cpu: Engine[Item_contra] | None) -> None:
        self._pool = pool
        self.budget = CPU_BATCH_TOKENS * (1 if cpu is None else cpu.slots)
        self._cpu = cpu
        self._slots: SimpleQueue[int] = SimpleQueue()
        if cpu is not None:
            for slot in range(cpu.slots):
                self._slots.put(slot)
            self._threads = ThreadPoolExecutor(cpu.slots, "model-cpu")

    @property
    def away(self) -> str:
        """Why no GPU answers; empty if one does."""
        return self._pool.away

    @property
    def configured_gpus(self) -> int:
        """The number of GPUs that should answer."""
        return self._pool.configured_gpus

    def count_gpus(self) -> int:
        """Returns the number of GPUs that answer."""
        return self._pool.count_gpus()

    def reason(self, slot: int) -> str:
        """Returns why the last batch of a slot ran on the CPU; empty if it ran on a GPU."""
        return self._pool.reason(slot)

    def run(
        self,
        arrays: Sequence[NDArray[Any]],
        items: Callable[[], Sequence[Item_contra]],
        slot: int,
    ) -> NDArray[np.float32]:
        """Runs a batch.

        Args:
            arrays: The batch, for a worker of the pool.
            items: Returns the same batch, for the CPU.
            slot: See `GpuPool.run`.
        Raises: NotReady: no GPU answers, and there is no substitute. What the engine raises.
        """
        rows = self._pool.run(arrays, slot)
        if rows is not None:
            return rows
        if self._cpu is None:
            raise NotReady(f"no GPU answers ({self.reason(slot)}); see nearline doctor")
        parts = self._threads.map(self._run_piece, _pieces(items(), self._cpu.pad_multiple))
        return np.concatenate(list(parts))

    def close(self) -> None:
        """Ends the worker processes and the threads."""
        self._pool.close()
        if self._cpu is not None:
            self._threads.shutdown(cancel_futures=True)

    def _run_piece(self, items: Sequence[Item_contra]) -> NDArray[np.float32]:
        assert self._cpu is not None
        slot = self._slots.get()
        try:
            return self._cpu.run(items, slot)
        finally:
            self._slots.put(slot)


def _pieces(items: Sequence[Item_contra], pad_multiple: int) -> Iterator[Sequence[Item_contra]]:
    """Cuts a batch into batches for the CPU, in order."""
    start = longest = 0
    for at, item in enumerate(items):
        longest = max(longest, round_up(len(item), pad_multiple))
        if at > start and longest * (at + 1 - start) > CPU_BATCH_TOKENS:
            yield items[start:at]
            start, longest = at, round_up(len(item), pad_multiple)
    yield items[start:]


class GpuBackend:
    """A `Backend` over GPUs.

    fallback: Runs the batches.

    Args:
        pool: The GPUs.
        name: Name of the engine on the GPUs, such as "torch-bf16".
        dim: Number of components of a vector.
        pad_id: Token id of padding.
        cpu: The same model on the CPU. Optional.
    """

    # Tensor cores, and attention with a mask, want lengths that are multiples of 8.
    pad_multiple = 8

    def __init__(
        self, pool: GpuPool, name: str, dim: int, pad_id: int, cpu: Backend | None = None
    ) -> None:
        self.slots = pool.slots
        self.dim = dim
        self.fallback = CpuFallback(pool, None if cpu is None else PaddedBackend(cpu, pad_id))
        self._name = name
        self._cpu_name = name if cpu is None else cpu.name

    @property
    def name(self) -> str:
        """The engine in use."""
        return self._cpu_name if self.fallback.away else self._name

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        """Runs the model; see `Backend.embed`."""
        return self.fallback.run((batch.ids, batch.mask), lambda: unpad(batch), slot)


class GpuPairEngine:
    """An `Engine` of text pairs over GPUs.

    fallback: Runs the batches.

    Args:
        pool: The GPUs.
        cpu: The same model on the CPU.
    """

    pad_multiple = 8

    def __init__(self, pool: GpuPool, cpu: Engine[TextPair]) -> None:
        self.slots = pool.slots
        self.width = cpu.width
        self.fallback = CpuFallback(pool, cpu)

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Scores pairs; see `Engine.run`."""
        return self.fallback.run(pack_pairs(items), lambda: items, slot)
