"""Keeps service processes alive: starts them in order, restarts them, stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from nearline.errors import NearlineError, first_of
from nearline.retry import Backoff
from nearline_cli.local import liveness
from nearline_cli.local.disk import disk_problem
from nearline_cli.local.processes import ServiceProcess, parse_event, start_service

_BACKOFF = Backoff(0.5, 30.0)
# A process that ran this long had recovered: its next back-off starts from the first one again.
_STEADY_S = 60.0
# Warnings of Redis in its log: "81:M 27 Nov 2026 11:55:37.123 # Error writing to the AOF file".
_REDIS_WARNING = re.compile(r"[0-9]+:[A-Z] [^#]* # (?!WARNING)(.+)")
_WARNINGS = 3
_FIRST = asyncio.FIRST_COMPLETED
_LAST_WORDS = 300


class ProcessState(Enum):
    """State of a supervised process."""

    STARTING = "starting"
    SERVING = "serving"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to keep alive.

    arguments must fix the port, so that peers find a restarted process at the same address.
    address: host:port; empty if it has no peers, and listens on any port. environ: Environment
    variables in addition to this process's own; lists of processes do not show them. folder: The
    folder that it writes to; its disk is named if the process dies while that is full. Optional.
    answers: Returns whether the process at an address is alive.
    shared_port: Whether other processes listen on its port. core: The only core that it runs on.
    Optional.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    address: str
    ready_services: tuple[str, ...]
    ready_timeout_s: float = 120.0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    answers: Callable[[str], Awaitable[bool]] = liveness.answers_health
    shared_port: bool = False
    core: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A state change of a process.

    pid: 0 if it does not run. reason: Why it died. deaths: How often it died since it last ran for
    a minute.
    """

    name: str
    address: str
    pid: int
    state: ProcessState
    reason: str = ""
    retry_in_s: float = 0.0
    deaths: int = 0


class SupervisedProcess:
    """Keeps one process alive.

    Args:
        plan: The process.
        on_change: Called at every state change.
        on_line: Called with the name of the process and each line that it logs. Optional.
        frozen_s: A process that does not answer for this many seconds is killed, and restarted.
        steady_s: A process that ran this long has recovered.
    """

    def __init__(
        self,
        plan: ProcessSpec,
        on_change: Callable[[StateChange], None],
        on_line: Callable[[str, str], None] | None = None,
        frozen_s: float = liveness.FROZEN_S,
        steady_s: float = _STEADY_S,
    ) -> None:
        self._frozen_s = frozen_s
        self._steady_s = steady_s
        self._deaths = 0
        self._plan = plan
        self._on_change = on_change
        self._on_line = on_line
        self._service: ServiceProcess | None = None
        self._address = plan.address

    async def start(self) -> ServiceProcess:
        """Starts the process. Raises the same errors as `start_service`."""
        plan, forward = self._plan, self._on_line
        self._report(ProcessState.STARTING)
        self._service = await start_service(
            plan.module,
            plan.arguments,
            ready_services=plan.ready_services,
            name=plan.name,
            ready_timeout_s=plan.ready_timeout_s,
            environ=plan.environ,
            core=plan.core,
            on_line=None if forward is None else (lambda line: forward(plan.name, line)),
        )
        self._address = plan.address or self._service.address
        self._report(ProcessState.SERVING)
        return self._service

    async def keep(self) -> None:
        """Starts the process unless it runs, and restarts it whenever it dies, until cancelled."""
        delays = _BACKOFF.delays()
        while True:
            try:
                service = self._service or await self.start()
                since = time.monotonic()
                reason = await self._end(service)
                self._service = None
                await service.stop()
                if time.monotonic() - since >= self._steady_s:
                    delays, self._deaths = _BACKOFF.delays(), 0
            except NearlineError as error:
                # The report names the process.
                reason = error.message.removeprefix(f"{self._plan.name} ")
            except OSError as error:
                # The machine cannot start another process now.
                reason = str(error)
            delay_s = next(delays)
            self._deaths += 1
            if self._plan.folder is not None and (full := disk_problem(self._plan.folder)):
                reason = f"{reason}; {full}"
            self._report(ProcessState.DIED, reason=reason, retry_in_s=delay_s)
            await asyncio.sleep(delay_s)

    async def _end(self, service: ServiceProcess) -> str:
        """Waits until the process has ended, and returns why; kills it if it is frozen."""
        ended = asyncio.ensure_future(service.wait())
        frozen = asyncio.ensure_future(self._until_frozen(service))
        try:
            if self._deaths:
                await asyncio.wait((ended, frozen), timeout=self._steady_s, return_when=_FIRST)
                if not (ended.done() or frozen.done()):
                    self._deaths = 0
                    self._report(ProcessState.SERVING)
            await asyncio.wait((ended, frozen), return_when=_FIRST)
            if ended.done():
                return _why(ended.result(), service)
            frozen.result()
            service.process.kill()
            await ended
            return f"did not answer for {self._frozen_s:g} s, and was killed"
        finally:
            ended.cancel()
            frozen.cancel()

    async def _until_frozen(self, service: ServiceProcess) -> None:
        async def probe() -> bool:
            if self._plan.shared_port:
                return await liveness.runs(service.pid)
            return await self._plan.answers(service.address)

        await liveness.wait_until_frozen(probe, self._frozen_s)

    async def stop(self) -> None:
        """Stops the process if it runs; `keep` must have been cancelled before."""
        service, self._service = self._service, None
        if service is not None:
            await service.stop()
        if service is not None or self._deaths:
            self._report(ProcessState.STOPPED)

    def _report(self, state: ProcessState, *, reason: str = "", retry_in_s: float = 0.0) -> None:
        self._on_change(
            StateChange(
                name=self._plan.name,
                address=self._address,
                pid=self._service.pid if self._service else 0,
                state=state,
                reason=reason,
                retry_in_s=retry_in_s,
                deaths=self._deaths,
            )
        )


class Supervisor:
    """Runs processes until it is stopped.

    Args:
        stages: Processes in order of start. Those of a stage start together, and must serve before
            the next stage starts. Stages stop in reverse order: a router before its backends.
        on_change: Called at every state change.
        on_line: Called with the name of a process and each line that it logs. Optional.
        frozen_s: See `SupervisedProcess`.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[ProcessSpec]],
        on_change: Callable[[StateChange], None],
        on_line: Callable[[str, str], None] | None = None,
        frozen_s: float = liveness.FROZEN_S,
    ) -> None:
        self._stages = [
            [SupervisedProcess(plan, on_change, on_line, frozen_s) for plan in stage]
            for stage in stages
        ]

    async def run(self, stop: asyncio.Event, started: Callable[[], None]) -> None:
        """Starts everything, calls `started`, and keeps it running until `stop` is set.

        Raises the errors of `start_service` if a process does not start the first time.
        """
        try:
            if await _run_unless(stop, self._start_all()):
                started()
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(process.keep())
                        for stage in self._stages
                        for process in stage
                    ]
                    await stop.wait()
                    for task in tasks:
                        task.cancel()
        finally:
            for stage in reversed(self._stages):
                await asyncio.gather(*(process.stop() for process in stage))

    async def _start_all(self) -> None:
        for stage in self._stages:
            try:
                async with asyncio.TaskGroup() as group:
                    for process in stage:
                        group.create_task(process.start())
            except* NearlineError as failures:
                raise first_of(failures) from None


@contextlib.asynccontextmanager
async def run_supervised(
    stages: Sequence[Sequence[ProcessSpec]],
    on_change: Callable[[StateChange], None],
    on_line: Callable[[str, str], None] | None = None,
) -> AsyncIterator[None]:
    """Keeps processes alive for the duration of the block; see `Supervisor` for the arguments.

    Raises:
        SettingsError, NotReady: A process did not start.
    """
    stop, started = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(stages, on_change, on_line)
    running = asyncio.create_task(supervisor.run(stop, started.set))
    waiter = asyncio.create_task(started.wait())
    try:
        await asyncio.wait((running, waiter), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        yield
    finally:
        waiter.cancel()
        stop.set()
        await running


def end_on_sigterm() -> None:
    """Makes SIGTERM cancel the running task, as Ctrl-C does, and so the death of its owner.

    A program that starts a command as a part of itself holds the lifeline, see `nearline.serving`.
    """
    # Imported late: it brings what servers need.
    from nearline.serving import LIFELINE_VARIABLE, watch_lifeline

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    # Processes that this one starts have a lifeline of their own.
    lifeline = os.environ.pop(LIFELINE_VARIABLE, None)
    if lifeline is not None:
        os.set_inheritable(int(lifeline), False)
    watch_lifeline(lifeline, task.cancel)


async def _run_unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Runs the work unless the stop comes first; returns whether the work is done."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if task.cancelled():
        return False
    task.result()
    return True


def _why(code: int, service: ServiceProcess) -> str:
    for line in reversed(service.log):
        event = parse_event(line)
        if event.get("event") == "failed" and event.get("reason"):
            return str(event["reason"])
    if code < 0:
        return f"killed by signal {-code}"
    words = _last_words(service.log)
    return f"ended with code {code}: {words}" if words else f"ended with code {code}"


def _last_words(log: Sequence[str]) -> str:
    """Returns the last warnings of a Redis, or the last line that is not a log event."""
    lines = [line.strip() for line in log if line.strip() and not parse_event(line)]
    said = [match[1] for line in lines if (match := _REDIS_WARNING.fullmatch(line))]
    return "; ".join(said[-_WARNINGS:] or lines[-1:])[:_LAST_WORDS]
