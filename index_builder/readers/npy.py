"""Reads .npy matrices, memory-mapped: one vector per row; ids are zero-padded row numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item
from nearline.errors import InvalidRequest

_BLOCK_ROWS = 4096


def read_matrix(path: Path, source: str) -> Iterator[SourceRow]:
    """Yields the rows of an (n, d) matrix of float32, float64 or float16.

    Row 7 of 1,000 has the id "007" and the line number 8.
    Raises: InvalidRequest: the file is no such matrix.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidRequest(
            f"{source} is not a readable .npy file: {error}", field="corpus"
        ) from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InvalidRequest(
            f"{source} has shape {matrix.shape} and type {matrix.dtype}; (n, d) float32 is "
            "required",
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
