"""Conversion of numpy arrays to the little-endian bytes of `nearline.v1.Vectors`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.errors import InvalidRequest
from nearline.v1 import types_pb2

__all__ = ["as_matrix", "count_rows", "decode", "normalise", "pack", "unpack"]

_DTYPES: dict[types_pb2.DataType, np.dtype[Any]] = {
    types_pb2.DATA_TYPE_UNSPECIFIED: np.dtype("<f4"),
    types_pb2.DATA_TYPE_F32: np.dtype("<f4"),
    types_pb2.DATA_TYPE_F16: np.dtype("<f2"),
    types_pb2.DATA_TYPE_I8: np.dtype("i1"),
}
_I8_SCALE = 127.0
MAX_DIM = 65_536


def pack(
    matrix: NDArray[np.float32], dtype: types_pb2.DataType = types_pb2.DATA_TYPE_F32
) -> types_pb2.Vectors:
    """Packs a matrix for the wire.

    Args:
        matrix: (n, d) or (d,) float32; for DATA_TYPE_I8, numbers are in -1..1.
        dtype: Number format of the bytes.
    Raises: InvalidRequest: unknown dtype.
    """
    if dtype not in _DTYPES:
        raise InvalidRequest(f"unknown vector dtype {dtype}; use F32, F16 or I8", field="dtype")
    rows = np.rint(matrix * _I8_SCALE) if dtype == types_pb2.DATA_TYPE_I8 else matrix
    data = np.ascontiguousarray(rows, dtype=_DTYPES[dtype]).tobytes()
    return types_pb2.Vectors(data=data, dim=matrix.shape[-1], dtype=dtype)


def unpack(vectors: types_pb2.Vectors, field: str = "vectors") -> NDArray[np.float32]:
    """Unpacks vectors from the wire.

    Returns: (n, d) float32, C order. For F32 it is a read-only view of the message's bytes.
    Raises: InvalidRequest: length, dim and dtype are inconsistent, or a number is not finite.
    """
    return as_matrix(decode(vectors, field), field)


def decode(vectors: types_pb2.Vectors, field: str = "vectors") -> NDArray[np.float32]:
    """Unpacks vectors from the wire without checking the numbers.

    Returns: (n, d) float32, C order; numbers may be NaN or infinite.
    Raises: InvalidRequest: length, dim and dtype are inconsistent.
    """
    rows, dim = count_rows(vectors, field), vectors.dim
    matrix: NDArray[Any] = np.frombuffer(vectors.data, _DTYPES[vectors.dtype]).reshape(rows, dim)
    if vectors.dtype == types_pb2.DATA_TYPE_I8:
        matrix = matrix.astype(np.float32) / np.float32(_I8_SCALE)
    return np.ascontiguousarray(matrix, np.float32)


def count_rows(vectors: types_pb2.Vectors, field: str = "vectors") -> int:
    """Returns the number of rows, without unpacking any.

    Raises: InvalidRequest: length, dim and dtype are inconsistent.
    """
    dtype = _DTYPES.get(vectors.dtype)
    if dtype is None:
        raise InvalidRequest(
            f"unknown vector dtype {vectors.dtype}; use F32, F16 or I8", field=field
        )
    dim, size = vectors.dim, len(vectors.data)
    if dim > MAX_DIM:
        raise InvalidRequest(f"{field} has dim {dim}; 1..{MAX_DIM} is allowed", field=field)
    if dim == 0 or size == 0 or size % (dim * dtype.itemsize):
        raise InvalidRequest(
            f"{size} bytes are not whole rows of dim {dim} x {dtype.itemsize} bytes; send n * dim "
            "little-endian numbers and set dim",
            field=field,
        )
    return size // (dim * dtype.itemsize)


def as_matrix(values: NDArray[Any], field: str = "vectors") -> NDArray[np.float32]:
    """Converts to a float32 matrix after checking rank and numbers.

    Args:
        values: (n, d) or (d,) of any float dtype.
    Returns: (n, d) float32, C order; a copy only if the input is not that already.
    Raises: InvalidRequest: wrong rank, no numbers, NaN or infinity.
    """
    matrix = np.ascontiguousarray(np.atleast_2d(values), dtype=np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InvalidRequest(f"vectors have shape {values.shape}; (n, d) is needed", field=field)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise InvalidRequest(
            f"vector {row} has a NaN or infinite number; remove it before sending", field=field
        )
    return matrix


def normalise(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales rows to unit length.

    Args:
        matrix: (n, d) float32.
    Returns: (n, d) float32, a copy.
    Raises: InvalidRequest: a row is all zeros and has no direction.
    """
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (norms > 0).all():
        row = int(np.flatnonzero(norms[:, 0] <= 0)[0])
        raise InvalidRequest(f"vector {row} is all zeros and has no direction; omit it")
    return np.asarray(matrix / norms, dtype=np.float32)
