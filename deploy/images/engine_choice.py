"""Chooses the engine that builds images on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from deploy.images.buildah import Buildah
from deploy.images.container_engine import ContainerEngine
from deploy.images.engine import REMEDY, Engine, EngineError, run

_PROBE_TIMEOUT_S = 20.0


def choose_engine() -> Engine:
    """Returns the first of Docker, Podman and Buildah that runs.

    Raises: EngineError: none does.
    """
    for program in ("docker", "podman"):
        if shutil.which(program) and _runs([program, "info"]):
            return ContainerEngine(program)
    if shutil.which("buildah"):
        return Buildah()
    raise EngineError(f"nothing here builds images; {REMEDY}")


def _runs(command: Sequence[str]) -> bool:
    try:
        run(command, command[0], _PROBE_TIMEOUT_S)
    except EngineError:
        return False
    return True
