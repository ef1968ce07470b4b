"""Arrays of a snapshot, memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt

_Scalar = TypeVar("_Scalar", bound=np.generic)


def map_array(path: Path, dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    """Maps a .npy file of one dimension.

    Raises: SnapshotCorrupt: the file is missing, invalid, or has another type.
    """
    try:
        array: NDArray[_Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(
            f"{path} is not a valid array ({error}); rebuild the snapshot"
        ) from error
    if array.ndim != 1 or array.dtype != dtype:
        raise SnapshotCorrupt(
            f"{path} has shape {array.shape} and type {array.dtype}, not one dimension of {dtype}; "
            "rebuild the snapshot"
        )
    # A plain array: slicing a memmap runs Python code.
    return np.asarray(array)
