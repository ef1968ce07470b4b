"""Reads what this machine has for CUDA: GPUs, their driver, and the wheels that need them."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from embedding.devices import torch_cuda

FAISS_GPU_WHEELS = ("faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu13", "faiss-gpu-cuvs")
_PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"
_CUDA_WHEEL = re.compile(r"^nvidia-cuda-runtime-cu(\d+)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, its memory, and how much of it is free, in bytes."""

    name: str
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProbe:
    """Findings about the GPUs of a machine.

    hardware: Whether the machine has a GPU of NVIDIA, with or without a driver.
    gpus: GPUs that the driver shows to this process.
    driver: Version of the driver; empty if it does not answer.
    problem: Why the driver does not answer; empty if it does, or there is nothing to ask it with.
    torch_cuda: Major version of CUDA for which torch was built; 0 if it is a CPU build or absent.
    faiss: The installed FAISS wheel for GPUs; empty if there is none.
    faiss_cuda: Major version of CUDA for which that wheel was built; 0 if unknown.
    """

    hardware: bool = False
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""
    torch_cuda: int = 0
    faiss: str = ""
    faiss_cuda: int = 0


def probe_gpus() -> GpuProbe:
    """Asks the driver, the PCI bus and the installed wheels; imports none of these."""
    gpus, driver, problem = _ask_driver()
    faiss = next((name for name in FAISS_GPU_WHEELS if _is_installed(name)), "")
    return GpuProbe(
        hardware=bool(gpus) or _has_hardware(_PCI_DEVICES),
        gpus=gpus,
        driver=driver,
        problem=problem,
        torch_cuda=torch_cuda(),
        faiss=faiss,
        faiss_cuda=_faiss_cuda(faiss),
    )


def _ask_driver() -> tuple[tuple[Gpu, ...], str, str]:
    """Returns the GPUs, the version of the driver, and why it does not answer."""
    try:
        # Imported late: only GPU installations have it.
        import pynvml
    except ImportError:
        return (), "", "nvidia-ml-py, which asks the driver, is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), "", str(error)
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpus(pynvml)), driver, ""
    except pynvml.NVMLError as error:
        return (), "", str(error)
    finally:
        pynvml.nvmlShutdown()


def _gpus(nvml: ModuleType) -> Iterator[Gpu]:
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        yield Gpu(str(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free))


def _has_hardware(devices: Path) -> bool:
    """Returns whether the PCI bus has a display or compute device of NVIDIA."""
    try:
        found = list(devices.iterdir())
    except OSError:
        return False
    return any(
        _line(device / "vendor") == _NVIDIA and _line(device / "class").startswith(_DISPLAY_CLASS)
        for device in found
    )


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _faiss_cuda(wheel: str) -> int:
    if not wheel:
        return 0
    needed = importlib.metadata.requires(wheel) or []
    return next((int(found.group(1)) for one in needed if (found := _CUDA_WHEEL.match(one))), 0)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
