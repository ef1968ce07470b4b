"""User and item factors by alternating least squares, computed by `implicit`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index_builder.execution.build_device import CPU_DEVICE, BuildDevice, GpuFailed
from retrieval.behaviour.factors import ItemFactors

WORKER = "index_builder.behaviour.gpu_als"
# The CPU trains on fewer in the seconds that a GPU needs to start: an estimate, not measured.
LEAST_INTERACTIONS = 1_000_000
_LIMIT_S = 3_600.0
# Rows converted to float64 at a time: 32 MB.
_BLOCK_ROWS = 1 << 16


class AlsOptions(NamedTuple):
    """Options of ALS. Strong regularisation pays off: the library's default of 0.01 is weak."""

    factors: int = 64
    regularisation: float = 20.0
    alpha: float = 2.0
    iterations: int = 15


def train_factors(
    matrix: Any,
    options: AlsOptions = AlsOptions(),  # noqa: B008  tuples are immutable
    seed: int = 0,
    threads: int = 0,
    device: BuildDevice = CPU_DEVICE,
) -> ItemFactors:
    """Trains item factors.

    On the CPU with one thread, equal inputs give bit-identical outputs. On a GPU they differ in
    their last digits, and from those of the CPU: the seed begins another sequence there, and
    additions have no fixed order.

    Args:
        matrix: (users, items) float32 CSR of confidences.
        threads: Number of threads; 0 means one per core.
        device: A GPU trains on `LEAST_INTERACTIONS` or more; if it fails, the CPU does.
    """
    vectors = None
    if device.number is not None and matrix.nnz >= LEAST_INTERACTIONS:
        try:
            vectors = _train_on_gpu(matrix, options, seed, device)
        except GpuFailed as error:
            device.note(f"factors: trained on the CPU, because {error}")
    if vectors is None:
        vectors = _train_on_cpu(matrix, options, seed, threads)
    gram = np.zeros((options.factors, options.factors))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        wide = vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        gram += wide.T @ wide
    return ItemFactors(vectors, gram, options.regularisation, options.alpha)


def _train_on_cpu(matrix: Any, options: AlsOptions, seed: int, threads: int) -> NDArray[np.float32]:
    # `implicit` warns that threads of the linear algebra library inside its own threads slow it
    # down.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=options.factors,
            regularization=options.regularisation,
            alpha=options.alpha,
            iterations=options.iterations,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)
    return np.ascontiguousarray(model.item_factors, np.float32)


def _train_on_gpu(
    matrix: Any, options: AlsOptions, seed: int, device: BuildDevice
) -> NDArray[np.float32]:
    """Returns the factors that a worker trained.

    Raises: GpuFailed: it did not.
    """
    values = {**options._asdict(), "seed": seed, "shape": matrix.shape}
    arrays = [matrix.data, matrix.indices, matrix.indptr]
    reply = device.call(WORKER, "train", values, arrays, _LIMIT_S)
    vectors = np.ascontiguousarray(reply.arrays[0], np.float32)
    if vectors.shape != (matrix.shape[1], options.factors) or not np.isfinite(vectors).all():
        raise GpuFailed(f"its factors have shape {vectors.shape}, or are not finite")
    return vectors
