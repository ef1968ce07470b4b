"""The process that trains factors on a GPU: `python -m index_builder.behaviour.gpu_als …`.

Its arguments are REQUEST and PARENT; see `BuildDevice`. It writes the item factors to `target`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import implicit.gpu
import numpy as np
import scipy.sparse

from index_builder.execution.gpu_memory import check_memory, end_with

# The library for training on the CPU needs neither.
_REMEDY = "implicit trains on a GPU only with CUDA 13 and rmm-cu13"


def main(request: Mapping[str, Any], parent: int) -> None:
    """Trains and writes the item factors: (items, factors) float32."""
    end_with(parent)
    if not implicit.gpu.HAS_CUDA:
        sys.exit(_REMEDY)
    from implicit.gpu.als import AlternatingLeastSquares

    with np.load(request["matrix"]) as saved:
        parts = (saved["data"], saved["indices"], saved["indptr"])
        matrix = scipy.sparse.csr_matrix(parts, shape=tuple(saved["shape"]))
    # Factors of users and items; the matrix and its transpose.
    factor_bytes = 4 * sum(matrix.shape) * request["factors"]
    check_memory(factor_bytes + 2 * 8 * matrix.nnz)
    model = AlternatingLeastSquares(
        factors=request["factors"],
        regularization=request["regularisation"],
        iterations=request["iterations"],
        random_state=request["seed"],
    )
    # Unlike on the CPU, `fit` leaves `alpha` out. Source: implicit 0.7.3, gpu/als.py.
    model.fit(matrix * np.float32(request["alpha"]), show_progress=False)
    np.save(request["target"], model.item_factors.to_numpy())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
