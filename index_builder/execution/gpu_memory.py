"""The side of a GPU worker: it ends with its parent, and plans memory before it takes any."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

# FAISS sets 1.5 GiB aside for temporary data, and CUDA's own code takes a few hundred MiB.
_WORKSPACE_BYTES = 2 << 30
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Ends this process when the thread that started it ends; exits if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the build has ended")


def check_memory(data_bytes: int) -> None:
    """Exits with the reason unless the first GPU has room for data and the libraries' own needs.

    Args:
        data_bytes: Bytes of data on the GPU at once.
    Raises: As `free_bytes`.
    """
    free = free_bytes()
    needed = data_bytes + _WORKSPACE_BYTES
    if needed > free:
        sys.exit(
            f"it needs {needed / 2**30:,.1f} GiB of GPU memory, {free / 2**30:,.1f} GiB are free"
        )


def free_bytes(driver: Any = None) -> int:
    """Returns the free bytes of the first GPU, from CUDA's driver.

    FAISS has no such function in Python, and the runtime's has another name in every wheel.

    Args:
        driver: The library; None loads it.
    Raises: OSError: there is no driver. RuntimeError: it does not answer; has the CUresult.
    """
    driver = driver or ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for name, arguments in (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        # The context that FAISS will use, too; it stays until the process ends.
        ("cuDevicePrimaryCtxRetain", (ctypes.byref(context), device)),
        ("cuCtxSetCurrent", (context,)),
        ("cuMemGetInfo_v2", (ctypes.byref(free), ctypes.byref(total))),
    ):
        if error := getattr(driver, name)(*arguments):
            raise RuntimeError(f"{name} of CUDA's driver failed with error {error}")
    return free.value
