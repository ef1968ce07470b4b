"""Names of the devices that a build may run on, the same as those of the embedding service."""

from __future__ import annotations

import re

from nearline.errors import InvalidRequest

AUTO_DEVICE, CPU = "auto", "cpu"
_GPU = re.compile(r"^cuda(?::(\d{1,3}))?$")


def check_device(device: str) -> None:
    """Raises InvalidRequest unless the device is auto, cpu, cuda or cuda:N."""
    if device not in (AUTO_DEVICE, CPU) and not _GPU.match(device):
        raise InvalidRequest(f"device is {device!r}; use auto, cpu, cuda or cuda:N", field="device")


def gpu_number(device: str) -> int:
    """Returns the number of the GPU that a device names; 0 for auto and cuda."""
    named = _GPU.match(device)
    return int(named[1] or 0) if named else 0


def check_gpu_share(share: float) -> None:
    """Raises InvalidRequest unless Ray can give a worker this many GPUs."""
    if not (0 <= share <= 64 and (share <= 1 or share % 1 == 0)):
        raise InvalidRequest(
            f"ray_gpu_share is {share:g}; use a fraction of a GPU, such as 0.25, or a whole number "
            "of GPUs; 0: workers use no GPU",
            field="ray_gpu_share",
        )
