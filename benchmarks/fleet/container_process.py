"""A container that runs: probes, restarts, and stops as an engine would."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet import sandbox
from benchmarks.fleet.containers import Container, Probe
from nearline import health
from nearline.errors import NotReady
from nearline.retry import Backoff
from nearline_cli.local.bundled_redis import find_program

# Docker's delays of restarts; it forgets them after ten seconds without an end.
_BACKOFF = Backoff(0.1, 60.0)
_STEADY_S = 10.0
_TAIL = 2_000
_POLL_S = 0.05
_EXECUTE_S = 300.0
# Wildcard and loopback addresses in arguments: containers share one network here, so both stand for
# the address that the container has.
_OWN_ADDRESSES = ("0.0.0.0", "127.0.0.1", "localhost")
# Sends a command to a Redis; an error as the reply, or none in time, is exit code 1.
_REDIS_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), timeout=3) as connection:
    connection.sendall(" ".join(sys.argv[2:]).encode() + b"\\r\\n")
    reply = connection.recv(4096).decode()
print(reply.strip())
sys.exit(reply.startswith("-"))
"""


class Executed(NamedTuple):
    """Result of a command in a container; output has standard output and error."""

    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Stop:
    """How a container ended when told to stop.

    seconds: From the order to the end. code: Exit code, negative for a signal. killed: Whether the
    grace period ended first, which is a failure.
    """

    name: str
    seconds: float
    code: int
    killed: bool


class Folders(NamedTuple):
    """Where containers of a fleet have their root folders, logs and host names."""

    roots: Path
    logs: Path
    hosts: Path


class RunningContainer:
    """Runs a container until it is stopped.

    Args:
        container: What to run; its wildcard and loopback addresses become `address`.
        address: The container's own loopback address.
        folders: Folders of its fleet.
        on_change: Called whenever `ready` changes.
    """

    def __init__(
        self,
        container: Container,
        address: str,
        folders: Folders,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        environ = {name: _at_address(text, address) for name, text in container.environ.items()}
        self.container = replace(container, environ=environ)
        self.name = container.name
        self.address = address
        # A container without a probe is ready while it runs.
        self.ready = False
        self.restarts = 0
        self.log = folders.logs / f"{container.name}.log"
        self.exit_code: int | None = None
        self._folders = folders
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Id of its first process on this machine; None while it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return None
        return sandbox.first_process(process.pid)

    def start(self) -> None:
        """Starts it in the background."""
        self._keeper = asyncio.create_task(self._keep())

    async def wait(self) -> int:
        """Waits until it has ended for good; returns the exit code."""
        assert self._keeper is not None
        await asyncio.shield(self._keeper)
        assert self.exit_code is not None
        return self.exit_code

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until it is ready. Raises: NotReady: it ended, or is not ready in time."""
        assert self._keeper is not None
        end = time.monotonic() + timeout_s
        while not self.ready:
            if self._keeper.done():
                raise NotReady(f"{self.name} ended with {self.exit_code}:\n{self.tail()}")
            if time.monotonic() > end:
                raise NotReady(f"{self.name} is not ready in {timeout_s:g} s:\n{self.tail()}")
            await asyncio.sleep(_POLL_S)

    async def execute(self, words: Sequence[str], timeout_s: float = _EXECUTE_S) -> Executed:
        """Runs a command in the container; a command that takes too long is killed."""
        pid = self.pid
        if pid is None:
            return Executed(-1, f"{self.name} does not run")
        inside = sandbox.command_inside(self.container, self._localized(words), pid)
        process = await asyncio.create_subprocess_exec(
            *inside,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=sandbox.environment(self.container),
            process_group=0,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        finally:
            # nsenter waits for the command, which has the same process group.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        assert process.returncode is not None
        return Executed(process.returncode, output.decode("utf-8", "replace"))

    def kill(self) -> None:
        """Kills its first process, and so all of them, as a crash or the kernel would."""
        pid = self.pid
        assert pid is not None, f"{self.name} does not run"
        os.kill(pid, signal.SIGKILL)

    async def stop(self) -> Stop:
        """Stops it: hook, signal, grace period, SIGKILL."""
        begin = time.monotonic()
        self._stopping = True
        assert self._keeper is not None
        killed = False
        try:
            async with asyncio.timeout(self.container.grace_s):
                if self.container.pre_stop and self.pid is not None:
                    await self.execute(self.container.pre_stop)
                # A command that is restarted just now gets no signal yet.
                while not self._keeper.done():
                    if (pid := self.pid) is not None:
                        os.kill(pid, self.container.stop_signal)
                        await asyncio.wait((self._keeper,))
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            killed = True
            with contextlib.suppress(AssertionError, ProcessLookupError):
                self.kill()
        await asyncio.wait((self._keeper,))
        code = -1 if self.exit_code is None else self.exit_code
        return Stop(self.name, time.monotonic() - begin, code, killed)

    def tail(self) -> str:
        """Returns the end of its log."""
        return self.log.read_text("utf-8", "replace")[-_TAIL:] if self.log.exists() else ""

    async def _keep(self) -> None:
        delays = _BACKOFF.delays()
        while True:
            began = time.monotonic()
            await self._run_once()
            if self._stopping or not self.container.restarts:
                return
            if time.monotonic() - began > _STEADY_S:
                delays = _BACKOFF.delays()
            self.restarts += 1
            await asyncio.sleep(next(delays))

    async def _run_once(self) -> None:
        root, words = self._folders.roots / self.name, self._localized(self.container.words)
        with self.log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                *sandbox.command(self.container, words, root, self._folders.hosts),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=sandbox.environment(self.container),
                process_group=0,
            )
        probing = asyncio.create_task(self._probe())
        try:
            self.exit_code = await process.wait()
        finally:
            probing.cancel()
            self._set_ready(False)
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _probe(self) -> None:
        container = self.container
        if container.started is not None:
            async for good in self._states(container.started):
                if good:
                    break
                await self._restart()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_readiness())
            if container.alive is not None:
                group.create_task(self._watch_life(container.alive))

    async def _watch_readiness(self) -> None:
        if self.container.ready is None:
            self._set_ready(True)
            return
        async for good in self._states(self.container.ready):
            self._set_ready(good)

    async def _watch_life(self, probe: Probe) -> None:
        async for good in self._states(probe):
            if not good:
                await self._restart()

    async def _states(self, probe: Probe) -> AsyncIterator[bool]:
        """Repeats a check; yields True after a success, and False after enough failures."""
        began, failures = time.monotonic(), 0
        while True:
            if await self._passes(probe):
                failures = 0
                yield True
            elif self.ready or time.monotonic() - began > probe.start_period_s:
                failures += 1
                if failures == probe.failures:
                    yield False
            await asyncio.sleep(probe.interval_s if self.ready else probe.start_interval_s)

    async def _passes(self, probe: Probe) -> bool:
        """Makes a check once; returns whether it succeeded in time."""
        words, port, path = probe.check
        try:
            async with asyncio.timeout(probe.timeout_s):
                if words:
                    return (await self.execute(words)).code == 0
                if path:
                    read = partial(_http_status, self.address, port, path, probe.timeout_s)
                    return 200 <= await asyncio.to_thread(read) < 400
                ask = partial(health.query, f"{self.address}:{port}", probe.timeout_s)
                return not (await asyncio.to_thread(ask)).why
        except (OSError, TimeoutError, http.client.HTTPException):
            return False

    async def _restart(self) -> None:
        """Ends the process, which is then started again."""
        if (pid := self.pid) is not None:
            os.kill(pid, self.container.stop_signal)
            await asyncio.sleep(self.container.grace_s)
            with contextlib.suppress(AssertionError, ProcessLookupError):
                self.kill()

    def _set_ready(self, ready: bool) -> None:
        changed, self.ready = self.ready != ready, ready
        if changed:
            self._on_change()

    def _localized(self, words: Sequence[str]) -> tuple[str, ...]:
        """Returns a command with its own address, and a program of this machine for Redis's.

        A Redis without --bind listens everywhere, which here would be the addresses of others, too.
        """
        if not words:
            return ()
        program, *rest = (_at_address(word, self.address) for word in words)
        if program in ("valkey-server", "redis-server"):
            return (str(find_program()), *rest, "--bind", self.address)
        if program in ("valkey-cli", "redis-cli"):
            if found := shutil.which(program):
                return (found, "-h", self.address, *rest)
            return ("python", "-I", "-S", "-c", _REDIS_CLIENT, self.address, *rest)
        return (program, *rest)


def _at_address(text: str, address: str) -> str:
    """Returns a word of a command line with the container's address for wildcard and loopback."""
    host, colon, port = text.partition(":")
    if host in _OWN_ADDRESSES and (not colon or port.isdecimal()):
        return f"{address}{colon}{port}"
    return text


def _http_status(host: str, port: int, path: str, timeout_s: float) -> int:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=timeout_s)) as one:
        one.request("GET", path)
        return one.getresponse().status
