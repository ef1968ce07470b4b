"""Reads .npy matrices, memory-mapped: one vector per row; ids are zero-padded row numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.bad_rows import reason_of
from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.vectors import MAX_DIM

_BLOCK_ROWS = 4096
_MAGIC = b"\x93NUMPY"


def read_matrix(path: Path, source: str) -> Iterator[SourceRow]:
    """Yields the rows of an (n, d) matrix of float32, float64 or float16.

    Row 7 of 1,000 has the id "007" and the line number 8.
    Raises: InvalidRequest: the file is no such matrix.
    """
    matrix = _mapped(path, source)
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not 1 <= matrix.shape[1] <= MAX_DIM:
        raise InvalidRequest(
            f"{source} has shape {matrix.shape} and type {matrix.dtype}; (n, d) float32 is "
            f"required, with d in 1..{MAX_DIM}",
            field="corpus",
        )
    width = len(str(max(len(matrix) - 1, 0)))
    for first in range(0, len(matrix), _BLOCK_ROWS):
        with np.errstate(over="ignore"):
            block = np.asarray(matrix[first : first + _BLOCK_ROWS]).astype(np.float32)
        for number, vector in enumerate(block, start=first):
            yield SourceRow(
                SourceLocation(source, number + 1), Item(id=f"{number:0{width}}", vector=vector)
            )


def _mapped(path: Path, source: str) -> NDArray[Any]:
    """Returns the matrix of a file, mapped into memory.

    Raises: InvalidRequest: the file is none.
    """
    with path.open("rb") as stream:
        magic = stream.read(len(_MAGIC))
    try:
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic!r}, not {_MAGIC!r}")
        with np.errstate(all="ignore"):
            matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return matrix
    except Exception as error:
        # The header is a Python literal: damaged or malicious ones raise almost any exception.
        reason = reason_of(error) or type(error).__name__
        raise InvalidRequest(
            f"{source} is not a readable .npy file: {reason}", field="corpus"
        ) from error
