"""Memory of a GPU, asked in its worker: planned before any of it is taken."""

from __future__ import annotations

import ctypes
from typing import Any

from index_builder.execution.build_device import GpuFailed

# FAISS sets 1.5 GiB aside for temporary data, and CUDA's own code takes a few hundred MiB.
_WORKSPACE_BYTES = 2 << 30


def check_memory(data_bytes: int) -> None:
    """Checks that the first GPU has room for data and the libraries' own needs.

    Args:
        data_bytes: Bytes of data on the GPU at once.
    Raises: GpuFailed: it has not. As `free_bytes`.
    """
    free, needed = free_bytes(), data_bytes + _WORKSPACE_BYTES
    if needed > free:
        raise GpuFailed(
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
