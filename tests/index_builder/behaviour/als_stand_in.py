"""A worker for factors whose GPU is the CPU, or fails.

The environment variable GPU_STAND_IN says how: works, bare, killed, full or undefined.
"""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import implicit.gpu
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares

from index_builder.behaviour import gpu_als
from index_builder.execution import gpu_memory
from nearline.workers.process import serve_calls

BEHAVIOUR = os.environ["GPU_STAND_IN"]


class GpuLeastSquares:
    """In place of `implicit.gpu.als.AlternatingLeastSquares`, whose `fit` knows no alpha."""

    def __init__(self, **options: Any) -> None:
        self._cpu = AlternatingLeastSquares(num_threads=1, **options)

    def fit(self, matrix: Any, *, show_progress: bool) -> None:
        """Trains."""
        if BEHAVIOUR == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        self._cpu.fit(matrix, show_progress=show_progress)

    @property
    def item_factors(self) -> Any:
        """The factors, as a matrix on a GPU has them."""
        factors = self._cpu.item_factors
        return SimpleNamespace(
            to_numpy=lambda: factors * (np.nan if BEHAVIOUR == "undefined" else 1)
        )


if __name__ == "__main__":
    implicit.gpu.HAS_CUDA = BEHAVIOUR != "bare"
    sys.modules["implicit.gpu.als"] = SimpleNamespace(  # type: ignore[assignment]
        AlternatingLeastSquares=GpuLeastSquares
    )
    free = 1 if BEHAVIOUR == "full" else 80 << 30
    gpu_memory.free_bytes = lambda driver=None: free
    serve_calls({"train": gpu_als.train})
