"""Chooses the devices that the models run on."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

from nearline.errors import SettingsError

AUTO = "auto"
CPU = "cpu"
CPU_BATCH_TOKENS = 512
_MOST_BATCH_TOKENS = 1 << 16
# Memory that a token of a batch takes while the model runs: estimated for models of up to 768
# dimensions, not measured on a GPU yet. A batch may take a quarter of the free memory; two run at
# once.
_BYTES_PER_TOKEN = 32 << 10
_CUDA_VERSION = re.compile(r"^cuda\b[^=]*= *'(\d+)", re.MULTILINE)
_CUDA_DEVICES = re.compile(r"cuda(:all|:\d{1,3}(,cuda:\d{1,3})*)?")
_PROBE_S = 120.0
_log = logging.getLogger(__name__)


def resolve_devices(device: str) -> tuple[str, ...]:
    """Returns the devices of a setting: ("cpu",), or GPUs, such as ("cuda:0", "cuda:1").

    Args:
        device: "auto": the first GPU, or the CPU if there is none. "cpu". "cuda": the first GPU.
            "cuda:all": all GPUs. "cuda:1" or "cuda:0,cuda:1": these.
    Raises: SettingsError: it is none of these, or torch cannot use such a GPU.
    """
    wanted = named_devices(device)
    if wanted == (CPU,):
        return wanted
    gpus = tuple(f"cuda:{number}" for number in range(len(free_bytes())))
    if device == AUTO:
        return gpus[:1] or (CPU,)
    if wanted is None:
        wanted = gpus
    if not wanted or not set(wanted) <= set(gpus):
        raise SettingsError(
            f"device {device!r} cannot be used: torch finds {', '.join(gpus) or 'no GPU'}; use "
            f"{', '.join((CPU, *gpus))}, and see nearline doctor"
        )
    return wanted


def named_devices(device: str) -> tuple[str, ...] | None:
    """Returns the devices that a setting names, whether they exist or not; see `resolve_devices`.

    Returns: None for "auto" and "cuda:all".
    Raises: SettingsError: it is no device.
    """
    if device in (AUTO, "cuda:all"):
        return None
    if device == CPU:
        return (CPU,)
    if not _CUDA_DEVICES.fullmatch(device):
        raise SettingsError(
            f"device {device!r} is unknown; use auto, cpu, cuda, cuda:all, or numbers of GPUs such "
            "as cuda:0,cuda:1"
        )
    return ("cuda:0",) if device == "cuda" else tuple(dict.fromkeys(device.split(",")))


def default_batch_tokens(devices: tuple[str, ...]) -> int:
    """Returns how many padded tokens a batch has: 512 on a CPU, on a GPU as many as fit, to 65,536.

    The number is a power of two, so that it is the same at each start. Less memory than that costs
    time, but no request: see `MemoryLimitedEngine`.

    Args:
        devices: See `resolve_devices`; the one with the least free memory counts.
    """
    if devices == (CPU,):
        return CPU_BATCH_TOKENS
    free = free_bytes()
    fitting = min(free[int(device.partition(":")[2])] for device in devices)
    fitting = fitting // 4 // _BYTES_PER_TOKEN
    fitting = max(CPU_BATCH_TOKENS, min(_MOST_BATCH_TOKENS, fitting))
    return 1 << (fitting.bit_length() - 1)


def free_bytes() -> tuple[int, ...]:
    """Returns the free memory of each GPU that torch can use, by number; empty if there is none.

    It is asked once: a model that was loaded takes memory that was free before.
    """
    return _probe() if torch_cuda() else ()


@functools.cache
def _probe() -> tuple[int, ...]:
    try:
        probe = subprocess.run(
            [sys.executable, "-P", "-m", "embedding.gpu.probe"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
        )
        return tuple(map(int, json.loads(probe.stdout.splitlines()[-1])))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        _log.warning("torch could not be asked for GPUs", extra={"reason": str(error)})
        return ()


def torch_cuda() -> int:
    """Returns the major version of CUDA for which torch was built; 0 for CPUs, or without torch.

    Reads the files of torch: importing it takes seconds, which a build for CPUs is not worth.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return 0
    try:
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
    except OSError:
        return 0
    found = _CUDA_VERSION.search(text)
    return int(found.group(1)) if found else 0
