"""Processes of a test: containers of the images that were built, modules of this checkout else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from deploy.images.engine import Engine, EngineError, run
from gateway import health as gateway_health
from nearline import health
from nearline_cli.local.bundled_redis import command, find_program
from nearline_cli.local.liveness import answers_redis
from nearline_cli.local.processes import free_port

START_S = 120.0
_STOP_S = 30.0
_POLL_S = 0.2
_LOG_LINES = 20
_PROBES = {"nearline.health": health.check, "gateway.health": gateway_health.check}


class Stack(contextlib.ExitStack):
    """Services of a test by target. At the end all are stopped, the last one first.

    Args:
        engine: What runs containers.
        images: Names of images by target. A service of another target runs from this checkout.
        folder: Data of the services, at the same path in containers. Any user may write there.
        logs: Folder of the logs.
    """

    def __init__(self, engine: Engine, images: Mapping[str, str], folder: Path, logs: Path) -> None:
        super().__init__()
        self._engine = engine
        self._images = images
        self._folder = folder
        self._logs = logs

    def redis(self) -> str:
        """Starts the Redis of this checkout; returns its URL."""
        port = free_port()
        address = f"127.0.0.1:{port}"
        words = command(find_program(), self._folder / "redis", port)
        self.start(
            "redis", words, lambda: "" if asyncio.run(answers_redis(address)) else "no answer"
        )
        return f"redis://{address}/0"

    def serve(
        self, target: str, module: str, *arguments: str, probe: str = "nearline.health"
    ) -> str:
        """Starts a service and waits until it is healthy; returns its address.

        Args:
            target: Target of its image. module: Its module. arguments: Its arguments; it gets host
            and port. probe: Module that asks for its health, in the image too.
        Raises: EngineError: it is not healthy in time; the text has the end of its log.
        """
        port = str(free_port())
        address = f"127.0.0.1:{port}"
        words = ["python", "-P", "-m", module, "--host", "127.0.0.1", "--port", port, *arguments]
        self.start(module, self._command(target, words), lambda: _PROBES[probe](address))
        self.run(target, "python", "-P", "-m", probe, address)
        return address

    def run(self, target: str, *words: str) -> str:
        """Runs a command to its end, as `serve` starts one; returns its standard output."""
        output = run(self._command(target, words), f"{target}: {' '.join(words[:4])}").decode()
        if target not in self._images:
            # Containers run as another user, and write what this process has made, too.
            run(["chmod", "--recursive", "a+rwX", str(self._folder)], "chmod")
        return output

    def start(self, name: str, words: Sequence[str], why_not: Callable[[], str]) -> None:
        """Starts a process, and waits until `why_not` returns nothing.

        Raises: EngineError: it ends, or that takes too long; the text has the end of its log.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, process_group=0
            )
        self.enter_context(_stopped(process))
        deadline = time.monotonic() + START_S
        while why := why_not():
            code = process.poll()
            if code is not None or time.monotonic() > deadline:
                state = f"ended with {code}" if code is not None else f"is not healthy: {why}"
                last = log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
                raise EngineError("\n".join((f"{name} {state}", *last)))
            time.sleep(_POLL_S)

    def _command(self, target: str, words: Sequence[str]) -> list[str]:
        if target in self._images:
            volumes = {str(self._folder): self._folder}
            return self._engine.command_line(self._images[target], words, volumes)
        return [sys.executable if words[0] == "python" else words[0], *words[1:]]


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends a process and its children at the end: Buildah ends only the first of a container."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
