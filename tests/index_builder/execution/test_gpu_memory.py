"""Memory of a GPU is asked of the driver, and planned before it is taken."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from index_builder.execution import gpu_memory
from index_builder.execution.build_device import GpuFailed
from index_builder.execution.gpu_memory import check_memory, free_bytes


class Driver:
    """A driver of CUDA with one GPU; one of its functions may fail."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuDeviceGet":
                assert arguments[1] == 0
            if name == "cuMemGetInfo_v2":
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_size_t))[0] = 5 << 30
            return 2 if name == self._failing else 0

        return call


def test_free_memory_is_that_of_the_first_gpu() -> None:
    driver = Driver()
    assert free_bytes(driver) == 5 << 30
    assert driver.calls[0] == "cuInit" and driver.calls[-1] == "cuMemGetInfo_v2"


def test_a_driver_that_fails_is_an_error_with_its_number() -> None:
    driver = Driver("cuDevicePrimaryCtxRetain")
    with pytest.raises(RuntimeError, match=r"cuDevicePrimaryCtxRetain .* failed with error 2"):
        free_bytes(driver)
    assert driver.calls[-1] == "cuDevicePrimaryCtxRetain"


def test_data_that_does_not_fit_ends_the_worker_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_memory, "free_bytes", lambda: 5 << 30)
    check_memory(3 << 30)
    with pytest.raises(GpuFailed, match=r"it needs 5.5 GiB of GPU memory, 5.0 GiB are free"):
        check_memory(7 << 29)
