"""Chooses the device that the model runs on."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

AUTO = "auto"
CPU = "cpu"
_CPU_BATCH_TOKENS = 512
_MOST_BATCH_TOKENS = 1 << 16
# Memory that a token of a batch takes while the model runs: estimated for models of up to 768
# dimensions, not measured on a GPU yet. A quarter of the free memory is used.
_BYTES_PER_TOKEN = 32 << 10
_CUDA_VERSION = re.compile(r"^cuda\b[^=]*= *'(\d+)", re.MULTILINE)


def resolve_device(device: str) -> str:
    """Returns the device for a setting: "auto" is the first CUDA GPU, or the CPU if there is none.

    Args:
        device: "auto", or a torch device, which is returned unchanged.
    """
    if device != AUTO:
        return device
    if not torch_cuda():
        return CPU
    from embedding.torch_backend import has_cuda

    return "cuda:0" if has_cuda() else CPU


def default_batch_tokens(device: str) -> int:
    """Returns how many padded tokens a batch has: 512 on a CPU, on a GPU as many as fit, to 65,536.

    The number is a power of two, so that it is the same at each start. Less memory than that costs
    time, but no request: see `MemoryLimitedEngine`.

    Args:
        device: See `resolve_device`.
    """
    if not device.startswith("cuda"):
        return _CPU_BATCH_TOKENS
    from embedding.torch_backend import free_bytes

    fitting = free_bytes(device) // 4 // _BYTES_PER_TOKEN
    fitting = max(_CPU_BATCH_TOKENS, min(_MOST_BATCH_TOKENS, fitting))
    return 1 << (fitting.bit_length() - 1)


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
