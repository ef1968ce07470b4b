"""Starts, awaits and stops service processes as children, and leaves none behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

import nearline
from nearline.channel_security import ChannelSecurity
from nearline.errors import NotReady, SettingsError
from nearline_cli.terminal.missing_packages import check_service

EMBEDDING_SERVICES = ("nearline.v1.EmbeddingService",)
RETRIEVAL_SERVICES = ("nearline.v1.RetrievalService",)
GENERATION_SERVICES = ("nearline.v1.GenerationService",)
SHARD_SERVICES = ("nearline.internal.v1.ShardService",)
INGEST_SERVICES = ("nearline.v1.IngestService",)
INGEST_MODULE = "index_builder.ingest"
WORKER_MODULE = "index_builder.ingest.worker"
METRICS_VARIABLE = "NEARLINE_METRICS_PORT"

_LOG_LINES = 200
_LINE_LIMIT_BYTES = 1 << 20
_SETTINGS_EXIT_CODE = 2
# net.ipv4.ip_local_port_range begins at 32768 by default.
_LISTENING = range(10_000, 32_768)
# Ports handed out so far: a caller that needs several must not get one twice. Of ten random ports
# from this range, two are equal once in five hundred times.
_handed_out: set[int] = set()
# Not the shared generator: tests seed it, and their processes would pick the same ports.
_random = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a free port, a different one each time; another program may still take it.

    The port is below the range from which Linux takes ports for outgoing connections, because this
    machine's own connections would soon take a port in that range.

    Raises:
        NotReady: A hundred ports were tried and all were taken.
    """
    for port in _random.sample(_LISTENING, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            if port not in _handed_out:
                _handed_out.add(port)
                return port
    raise NotReady(
        "no free port was found; stop a program that listens on this machine, or name a port"
    )


@dataclass(slots=True, kw_only=True)
class ServiceProcess:
    """A running service: its address, pid and latest log lines."""

    name: str
    address: str
    process: asyncio.subprocess.Process
    log: deque[str] = field(repr=False)
    _pump: asyncio.Task[None] = field(repr=False)
    _lifeline: int = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    async def wait(self) -> int:
        """Waits until the process ends; returns the exit code, negative for a signal."""
        return await self.process.wait()

    async def stop(self, grace_s: float = 15.0) -> int:
        """Stops the process with SIGTERM, then SIGKILL after the grace period; returns the exit
        code.

        Args:
            grace_s: Seconds to drain; should exceed the service's own drain_s + grace_s.
        """
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        finally:
            code = await self.process.wait()
            await self._pump
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1
        return code


async def start_service(
    module: str,
    arguments: Sequence[str] = (),
    *,
    ready_services: Sequence[str] = ("",),
    name: str = "",
    ready_timeout_s: float = 120.0,
    environ: Mapping[str, str] | None = None,
    core: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> ServiceProcess:
    """Starts `python -m module` and waits until it serves.

    The child reports its address in the log event "serving" of `nearline.serving`, which identifies
    it even if several processes share a port; its gRPC health must then agree. It holds a lifeline:
    a pipe that closes when this process dies, however it dies, and stops the child.

    Args:
        module: Module with a `__main__`, for example "retrieval".
        arguments: Its arguments. Without --port, the service takes a free port.
        ready_services: Full proto names of services whose gRPC health must be SERVING.
        name: Name in errors and tables. If empty, the module.
        ready_timeout_s: Seconds to wait until it serves.
        environ: Environment variables in addition to this process's own.
        core: The only core that it runs on. Optional.
        on_line: Called with every line that the child writes. Optional.
    Raises:
        SettingsError: A package of the service is missing, or it refused its settings.
        NotReady: It ended, or did not serve in time; the text has its last lines.
    """
    check_service(module)
    name = name or module
    read_end, write_end = os.pipe()
    try:
        # -P: a folder called `retrieval` in the working directory is not our module.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(environ or {}, read_end),
            pass_fds=(read_end,),
            # Ctrl-C goes only to the supervisor, which stops its children in order.
            process_group=0,
            limit=_LINE_LIMIT_BYTES,
        )
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
    if core is not None:
        # Its threads start later, and inherit this. A sandbox may forbid it.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process.pid, {core})
    log: deque[str] = deque(maxlen=_LOG_LINES)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    pump = asyncio.create_task(_pump_lines(process, log, address, on_line))
    service = ServiceProcess(
        name=name, address="", process=process, log=log, _pump=pump, _lifeline=write_end
    )
    try:
        async with asyncio.timeout(ready_timeout_s):
            await asyncio.wait((address, pump), return_when=asyncio.FIRST_COMPLETED)
            if not address.done():
                raise _failed(name, await process.wait(), log)
            service.address = address.result()
            await _wait_healthy(service, ready_services)
    except TimeoutError:
        await service.stop(1.0)
        raise NotReady(
            f"{name} did not serve within {ready_timeout_s:g} s; its last lines:\n{_tail(log)}"
        ) from None
    except BaseException:
        await service.stop(1.0)
        raise
    return service


@contextlib.asynccontextmanager
async def service_process(
    module: str,
    arguments: Sequence[str] = (),
    *,
    ready_services: Sequence[str] = ("",),
    name: str = "",
    ready_timeout_s: float = 120.0,
    environ: Mapping[str, str] | None = None,
    core: int | None = None,
    grace_s: float = 15.0,
) -> AsyncIterator[ServiceProcess]:
    """Runs a service for the duration of the block; see `start_service` for the arguments."""
    service = await start_service(
        module,
        arguments,
        ready_services=ready_services,
        name=name,
        ready_timeout_s=ready_timeout_s,
        environ=environ,
        core=core,
    )
    try:
        yield service
    finally:
        await service.stop(grace_s)


@contextlib.asynccontextmanager
async def embedding_process(arguments: Sequence[str] = ()) -> AsyncIterator[ServiceProcess]:
    """Runs the embedding service; its first start may convert the model, which takes minutes."""
    async with service_process(
        "embedding", arguments, ready_services=EMBEDDING_SERVICES, ready_timeout_s=300.0
    ) as service:
        yield service


@contextlib.asynccontextmanager
async def redis_process(folder: Path, port: int = 0) -> AsyncIterator[str]:
    """Runs the bundled Redis for the duration of the block; yields its URL.

    Args:
        folder: Data folder; existing data are loaded.
        port: Port to listen on; 0 takes a free port.
    """
    words = ("--folder", str(folder), "--port", str(port or free_port()))
    module = "nearline_cli.local.redis_process"
    async with service_process(module, words, ready_services=(), name="redis") as server:
        yield f"redis://{server.address}/0"


@contextlib.asynccontextmanager
async def retrieval_process(
    store: Path,
    arguments: Sequence[str] = (),
    *,
    embedding: str = "",
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[ServiceProcess]:
    """Runs a router with its shards in the same process.

    Args:
        store: Folder of the store.
        arguments: Further arguments, for example ("--shards", "0=host:port").
        embedding: Address of the embedding service. If empty, only searches by vector and id work.
        environ: As in `start_service`.
    """
    words = ["--store", str(store), *arguments]
    if embedding:
        words += ["--embedding", embedding]
    async with service_process(
        "retrieval", words, ready_services=RETRIEVAL_SERVICES, environ=environ
    ) as service:
        yield service


@contextlib.asynccontextmanager
async def ingest_process(
    redis: str, arguments: Sequence[str] = ()
) -> AsyncIterator[ServiceProcess]:
    """Runs the ingest service of the queue in a Redis."""
    words = ("--redis", redis, *arguments)
    async with service_process(INGEST_MODULE, words, ready_services=INGEST_SERVICES) as service:
        yield service


@contextlib.asynccontextmanager
async def worker_process(
    redis: str, retrieval: str, arguments: Sequence[str] = ()
) -> AsyncIterator[ServiceProcess]:
    """Runs a worker of the queue in a Redis.

    Args:
        redis: URL of the Redis.
        retrieval: Address of the router that the worker writes to.
        arguments: Further arguments.
    """
    words = ("--redis", redis, "--retrieval", retrieval, *arguments)
    async with service_process(WORKER_MODULE, words) as service:
        yield service


def python_path() -> str:
    """Returns the path from which a child imports this same nearline, installed or not."""
    root = str(Path(nearline.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))


def _environment(more: Mapping[str, str], lifeline: int) -> dict[str, str]:
    # Imported late: it loads packages that only servers need.
    from nearline.serving import LIFELINE_VARIABLE

    # Several processes cannot share the port; `nearline up` gives each its own as an argument.
    inherited = {name: value for name, value in os.environ.items() if name != METRICS_VARIABLE}
    return {
        **inherited,
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        **more,
        LIFELINE_VARIABLE: str(lifeline),
    }


async def _pump_lines(
    process: asyncio.subprocess.Process,
    log: deque[str],
    address: asyncio.Future[str],
    on_line: Callable[[str], None] | None,
) -> None:
    assert process.stdout is not None
    while True:
        try:
            data = await process.stdout.readline()
        except ValueError:
            continue  # A line over the limit, which asyncio has dropped.
        if not data:
            return
        line = data.decode("utf-8", "replace").rstrip("\n")
        log.append(line)
        if on_line is not None:
            on_line(line)
        if not address.done() and (event := parse_event(line)).get("event") == "serving":
            address.set_result(str(event["address"]))


def parse_event(line: str) -> dict[str, object]:
    """Parses a JSON log line; returns an empty record for any other text."""
    if not line.startswith("{"):
        return {}
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


async def _wait_healthy(service: ServiceProcess, names: Sequence[str]) -> None:
    security = ChannelSecurity.choose("", None, os.environ)
    options = (("grpc.enable_http_proxy", 0),)
    async with security.open_channel(service.address, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in names:
            request = health_pb2.HealthCheckRequest(service=name)
            call = stub.Watch(request, wait_for_ready=True)
            watch = asyncio.ensure_future(_serving(call))
            ended = asyncio.ensure_future(service.process.wait())
            try:
                await asyncio.wait((watch, ended), return_when=asyncio.FIRST_COMPLETED)
                if not watch.done():
                    raise _failed(service.name, ended.result(), service.log)
                watch.result()
            finally:
                ended.cancel()
                watch.cancel()
                call.cancel()


async def _serving(call: AsyncIterator[health_pb2.HealthCheckResponse]) -> None:
    async for reply in call:
        if reply.status == health_pb2.HealthCheckResponse.SERVING:
            return


def _failed(name: str, code: int, log: Sequence[str]) -> NotReady | SettingsError:
    ended = f"{name} was killed by signal {-code}" if code < 0 else f"{name} ended with code {code}"
    for line in reversed(log):
        event = parse_event(line)
        if event.get("event") == "failed" and event.get("reason"):
            kind = SettingsError if code == _SETTINGS_EXIT_CODE else NotReady
            return kind(f"{name} did not start: {event['reason']}")
    return NotReady(f"{ended} before it served; its last lines:\n{_tail(log)}")


def _tail(log: Sequence[str], lines: int = 8) -> str:
    return "\n".join(f"  {line}" for line in list(log)[-lines:]) or "  (none)"
