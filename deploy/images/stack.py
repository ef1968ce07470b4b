"""Processes of a test: containers of the images that were built, modules of this checkout else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from deploy.images.engine import Container, Engine, EngineError, run
from nearline import health
from nearline_cli.local.bundled_redis import command, find_program
from nearline_cli.local.liveness import answers_redis
from nearline_cli.local.processes import free_port

START_S = 120.0
_STOP_S = 30.0
_POLL_S = 0.2
_LOG_LINES = 20


class Stack:
    """Services of a test by target. At the end all are stopped, the last one first.

    Args:
        engine: What runs containers.
        images: Names of images by target. A service of another target runs from this checkout.
        volumes: Folders by their path inside of containers. Containers may write there.
        logs: Folder of the logs.
    """

    def __init__(
        self,
        engine: Engine,
        images: Mapping[str, str],
        volumes: Mapping[str, Path],
        logs: Path,
    ) -> None:
        self._engine = engine
        self._images = images
        self._volumes = volumes
        self._logs = logs
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def redis(self) -> str:
        """Starts the Redis of this checkout, with its data at /redis; returns its URL."""
        port = free_port()
        folder = self._volumes["/redis"]
        words = command(find_program(), folder, port)
        address = f"127.0.0.1:{port}"
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
        words = self._command(target, module, ["--host", "127.0.0.1", "--port", port, *arguments])
        self.start(module, words, lambda: _why_not(address, probe))
        if target in self._images:
            self.run(target, "python", "-P", "-m", probe, address)
        return address

    def run(self, target: str, *words: str) -> str:
        """Runs a command of an image to its end; returns its standard output."""
        container = Container(self._images[target], words, self._volumes)
        return run(self._engine.command_line(container), f"{target}: {words[0]}").decode()

    def run_module(self, target: str, module: str, *arguments: str) -> str:
        """Runs a module to its end, as `serve` starts one; returns its standard output."""
        output = run(self._command(target, module, arguments), f"{target}: {module}").decode()
        if target not in self._images:
            # Containers run as another user, and write what this process has made, too.
            for path in self._volumes.values():
                run(["chmod", "--recursive", "a+rwX", str(path)], "chmod")
        return output

    def path(self, target: str, inside: str) -> str:
        """Returns the path of a volume as a process of a target sees it."""
        return inside if target in self._images else str(self._volumes[inside])

    def _command(self, target: str, module: str, arguments: Sequence[str]) -> list[str]:
        words = ["-P", "-m", module, *arguments]
        if target not in self._images:
            return [sys.executable, *words]
        container = Container(self._images[target], ["python", *words], self._volumes)
        return self._engine.command_line(container)

    def start(self, name: str, words: Sequence[str], why_not: Callable[[], str]) -> None:
        """Starts a process, and waits until `why_not` returns nothing.

        Raises: EngineError: it ends, or that takes too long; the text has the end of its log.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        self._stack.enter_context(_stopped(process))
        deadline = time.monotonic() + START_S
        while why := why_not():
            code = process.poll()
            if code is not None or time.monotonic() > deadline:
                state = f"ended with {code}" if code is not None else f"is not healthy: {why}"
                last = log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
                raise EngineError("\n".join((f"{name} {state}", *last)))
            time.sleep(_POLL_S)


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _why_not(address: str, probe: str) -> str:
    if probe == "gateway.health":
        from gateway import health as gateway_health

        return gateway_health.check(address)
    return health.check(address)
