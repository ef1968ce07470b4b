"""Arrays that grow piece by piece, in memory while they are small and in a file after that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.store.durable import store_errors

# Larger arrays are mapped from a file: the kernel writes them out when memory is short.
SPILL_BYTES = 1 << 26

_T = TypeVar("_T", bound=np.generic)


class SpilledArray(Generic[_T]):
    """An array of one dimension that grows at its end.

    The file has no name, so it is gone when the last array that maps it is. It is in the folder for
    temporary files, which TMPDIR sets; a folder in memory (tmpfs) saves nothing.
    """

    def __init__(self, dtype: type[_T]) -> None:
        self._dtype = np.dtype(dtype)
        self._parts: list[NDArray[_T]] = []
        self._bytes = 0
        self._file: IO[Any] | None = None

    def add(self, part: NDArray[Any]) -> None:
        """Appends numbers.

        Raises: StoreError: there is no space for the file.
        """
        self._parts.append(part.astype(self._dtype, copy=False))
        self._bytes += self._parts[-1].nbytes
        if self._bytes > SPILL_BYTES:
            with store_errors(Path(tempfile.gettempdir())):
                self._file = self._file or tempfile.TemporaryFile(prefix="nearline-", buffering=0)
                for one in self._parts:
                    left = np.ascontiguousarray(one).data.cast("B")
                    while len(left):
                        # One call writes 2 GiB at most.
                        left = left[self._file.write(left) :]
            self._parts.clear()

    def array(self) -> NDArray[_T]:
        """Returns all numbers; nothing can be added after that."""
        if self._file is None:
            return np.concatenate([np.empty(0, self._dtype), *self._parts])
        with self._file as file:
            # A plain view: slicing a memmap runs Python code.
            mapped: NDArray[_T] = np.asarray(np.memmap(file, self._dtype, "r+"))
        return mapped
