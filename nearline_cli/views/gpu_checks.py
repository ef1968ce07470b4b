"""Judges whether the GPUs of this machine can be used, and what is missing."""

from __future__ import annotations

from nearline_cli.local.gpu_probe import GpuProbe
from nearline_cli.terminal.output import format_bytes
from nearline_cli.views.checks import CheckResult, fail, ok, warn

_CHECK = "gpu"
_GPU_PACKAGES = (
    "in a new environment: pip install 'nearline-server[standard-gpu]', and "
    "pip install torch with CUDA"
)
_CPU_PACKAGES = "in a new environment: pip install 'nearline-server[standard]'"
# Oldest driver by major version of CUDA. Source: NVIDIA, "CUDA Compatibility", minor version
# compatibility.
_OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
# The embedding model and its batches need about 1 GiB.
_LEAST_FREE_BYTES = 2 << 30


def judge_gpus(found: GpuProbe) -> CheckResult:
    """Returns the check of `nearline doctor` for what was found."""
    wheels = _gpu_wheels(found)
    if not found.hardware:
        if not wheels:
            return ok(_CHECK, "none; everything runs on the CPU")
        return warn(_CHECK, f"none, but {wheels}: they work on the CPU, too", _CPU_PACKAGES)
    if not found.driver:
        judge = fail if wheels else warn
        return judge(
            _CHECK,
            f"a GPU of NVIDIA whose driver does not answer: {found.problem}",
            _driver_remedy(found),
        )
    if not found.gpus:
        return fail(
            _CHECK,
            f"driver {found.driver} shows no GPU to this process",
            "unset CUDA_VISIBLE_DEVICES; start the container with --gpus all, or let the pod ask "
            "for nvidia.com/gpu",
        )
    names = ", ".join(f"{gpu.name} with {format_bytes(gpu.memory_bytes)}" for gpu in found.gpus)
    if too_old := _too_old(found):
        return fail(_CHECK, f"{names}: {too_old}", _driver_remedy(found))
    if not (found.torch_cuda and found.faiss):
        lacking = [
            *([] if found.torch_cuda else ["torch is absent or built for CPUs"]),
            *([] if found.faiss else ["the FAISS wheel is one for CPUs"]),
        ]
        return warn(_CHECK, f"{names}, unused: {' and '.join(lacking)}", _GPU_PACKAGES)
    full = [
        f"GPU {number} has {format_bytes(gpu.free_bytes)} free"
        for number, gpu in enumerate(found.gpus)
        if gpu.free_bytes < _LEAST_FREE_BYTES
    ]
    if full:
        return warn(
            _CHECK,
            f"{names}: {', '.join(full)}",
            "end the processes that nvidia-smi lists, or choose another GPU with --device cuda:N",
        )
    return ok(_CHECK, f"{names}; driver {found.driver}; {wheels}")


def _gpu_wheels(found: GpuProbe) -> str:
    parts = [
        f"torch for CUDA {found.torch_cuda}" if found.torch_cuda else "",
        found.faiss and f"{found.faiss} for CUDA {found.faiss_cuda or 'of unknown version'}",
    ]
    return " and ".join(filter(None, parts))


def _too_old(found: GpuProbe) -> str:
    """Returns why the driver cannot run a wheel; empty if it can."""
    major = int(found.driver.partition(".")[0])
    for name, cuda in (("torch", found.torch_cuda), (found.faiss, found.faiss_cuda)):
        oldest = _oldest_driver(cuda)
        if major < oldest:
            return f"driver {found.driver} is too old for {name}, which needs CUDA {cuda}"
    return ""


def _oldest_driver(cuda: int) -> int:
    """Returns the major version of the oldest driver; of a newer CUDA, that of the newest known."""
    if not cuda:
        return 0
    return _OLDEST_DRIVERS.get(cuda, max(_OLDEST_DRIVERS.values()))


def _driver_remedy(found: GpuProbe) -> str:
    wanted = max(map(_oldest_driver, (found.torch_cuda, found.faiss_cuda)))
    version = f" {wanted} or newer" if wanted else ""
    return (
        f"install NVIDIA's driver{version} on the host; start a container with --gpus all. Without "
        "it, everything runs on the CPU"
    )
