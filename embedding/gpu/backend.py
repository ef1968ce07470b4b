"""The embedding model and the models of text pairs on GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Backend, Engine, PaddedBackend, TokenBatch, unpad
from embedding.gpu.fallback import CpuFallback
from embedding.gpu.pool import GpuPool
from embedding.pairs import TextPair, pack_pairs


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
