"""The worker that trains factors on a GPU; see `BuildDevice`."""

from __future__ import annotations

import implicit.gpu
import numpy as np
import scipy.sparse

from index_builder.execution.build_device import GpuFailed
from index_builder.execution.gpu_memory import check_memory
from nearline.workers.process import Message, serve_calls


def train(call: Message) -> Message:
    """Returns item factors: (items, factors) float32.

    Args:
        call: Values: `shape` of the matrix, `seed`, and the fields of `AlsOptions`. Arrays: data,
            indices and indptr of a float32 CSR matrix of users and items.
    Raises: GpuFailed: the GPU cannot be used.
    """
    if not implicit.gpu.HAS_CUDA:
        raise GpuFailed("implicit trains on a GPU only with CUDA 13 and rmm-cu13")
    # Imported late: it needs CUDA.
    from implicit.gpu.als import AlternatingLeastSquares

    values = call.values
    matrix = scipy.sparse.csr_matrix(tuple(call.arrays), shape=tuple(values["shape"]))
    # Factors of users and items; the matrix and its transpose.
    factor_bytes = 4 * sum(matrix.shape) * values["factors"]
    check_memory(factor_bytes + 2 * 8 * matrix.nnz)
    model = AlternatingLeastSquares(
        factors=values["factors"],
        regularization=values["regularisation"],
        iterations=values["iterations"],
        random_state=values["seed"],
    )
    # Unlike on the CPU, `fit` leaves `alpha` out. Source: implicit 0.7.3, gpu/als.py.
    model.fit(matrix * np.float32(values["alpha"]), show_progress=False)
    return Message({}, [model.item_factors.to_numpy()])


if __name__ == "__main__":
    serve_calls({"train": train})
