"""Returns the memory of large messages to the system.

The allocator of Linux keeps freed memory for later, and more of it the larger the blocks were: a
few messages of up to 64 MiB would double the memory of an idle service for good (77 to 160 MiB).
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc

# Smaller messages reuse the memory that the service has anyway.
LARGE_BYTES = 4 << 20
# Seconds after the last large message. A call that it began may take a while.
_DELAYS_S = (1.0, 10.0, 60.0)


# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 16 << 20


def return_large_blocks() -> None:
    """Makes the allocator return large blocks as soon as they are freed.

    By default, it does so until one is freed; from then on, it keeps blocks of that size, up to 32
    MiB. Call it before memory is used.
    """
    mallopt = getattr(_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        # Setting one of the two sets both, and the other one to a value that costs time.
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class MemoryReturn:
    """Returns freed memory some time after a large message; use it on the event loop."""

    def __init__(self) -> None:
        self._planned: asyncio.TimerHandle | None = None

    def note_message(self, size: int) -> None:
        """Takes note of a message. size: In bytes."""
        if size >= LARGE_BYTES:
            self._plan(0)

    def _plan(self, step: int) -> None:
        if self._planned is not None:
            self._planned.cancel()
        loop = asyncio.get_running_loop()
        self._planned = loop.call_later(_DELAYS_S[step], self._return, step)

    def _return(self, step: int) -> None:
        self._planned = None
        if step + 1 < len(_DELAYS_S):
            self._plan(step + 1)
        asyncio.get_running_loop().run_in_executor(None, _return_memory)


def _return_memory() -> None:
    # gRPC leaves the objects of a call in reference cycles.
    gc.collect()
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _library() -> ctypes.CDLL:
    """Returns the C library, whose functions differ outside glibc."""
    return ctypes.CDLL(None)
