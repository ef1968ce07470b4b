"""`nearline bench preauth`: what requests without a credential cost services that demand one."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import select
import socket
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import grpc
import typer
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.workloads.call_prober import CallProber, ProbedCall
from benchmarks.workloads.dear_payloads import json_payloads, wire_payloads
from benchmarks.workloads.deployment import deployment, key_environ
from benchmarks.workloads.figures import print_rows
from benchmarks.workloads.hostile_peer import HostilePeer
from benchmarks.workloads.process_memory import forget_peak, memory
from gateway.compatible.paths import PATHS
from gateway.mcp import http_endpoint
from gateway.upstream import SERVICES
from nearline_cli.local.processes import free_port, service_process
from nearline_cli.terminal.output import JsonFlag, print_note

_MOST_RATIO, _MOST_STALL_MS = 10.0, 50.0
# A connection and a call have buffers, however little they carry.
_FREE_BYTES = 1 << 20
# Other programs delay one of several tries, but not each of them.
_TRIES = 5
# A compressed request is small, so several are sent at once.
_COMPRESSED_CALLS = 8
_HEADER_BYTES = 60_000
_REPLY_S = 30.0
_PUBLIC = [
    *health_pb2.DESCRIPTOR.services_by_name.values(),
    *reflection_pb2.DESCRIPTOR.services_by_name.values(),
]


class Server(NamedTuple):
    """A process that listens."""

    name: str
    address: str
    pid: int


class Case(NamedTuple):
    """A request. send: Sends it, and returns the bytes on the wire."""

    name: str
    payload: str
    send: Callable[[], int]


class Cost(NamedTuple):
    """The cost of a request; see the columns of the command."""

    server: str
    request: str
    payload: str
    wire_bytes: int
    memory_kib: int
    ratio: float
    stall_ms: float

    @property
    def worst(self) -> float:
        """The larger of its shares of the two bars; above 1, one is missed."""
        return max(self.ratio / _MOST_RATIO, self.stall_ms / _MOST_STALL_MS)


def bench_preauth(
    *,
    brief: Annotated[
        bool,
        typer.Option("--brief", help="A router and a gateway, and one small payload per method."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send requests without a key to every method and route of services that demand one.

    Requests are drawn from the descriptors, small in bytes and large when decoded; each is sent raw
    and compressed. Prints the worst five and all that miss a bar, and then exits with 1: more than
    10 bytes of memory for each byte on the wire (beyond 1 MiB), or 50 ms in each of five tries by
    which the health check of another connection is late.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        costs = asyncio.run(_measure(Path(folder), brief))
    costs.sort(key=lambda one: -one.worst)
    missed = sum(one.worst > 1 for one in costs)
    shown = costs[: max(5, missed)]
    print_rows([one._asdict() for one in shown], as_json=as_json)
    print_note(f"{len(costs):,} requests; {missed} missed a bar")
    raise typer.Exit(bool(missed))


async def _measure(folder: Path, brief: bool) -> list[Cost]:
    environ = await key_environ(folder, tls=False)
    (folder / "store").mkdir()
    async with (_two if brief else _all)(folder / "store", environ) as servers:
        return await asyncio.to_thread(lambda: list(_costs(servers, brief)))


@contextlib.asynccontextmanager
async def _two(store: Path, environ: dict[str, str]) -> AsyncIterator[list[Server]]:
    """Runs a router, which refuses calls of other services before it passes them on; a gateway."""
    behind: list[str] = []
    for name in ("embedding", "generation", "ingest"):
        behind += (f"--{name}", f"127.0.0.1:{free_port()}")
    words = ("--store", str(store), "--allow-empty", "true", *behind)
    async with service_process("retrieval", words, environ=environ, ready_services=()) as router:
        words = ("--port", "0", "--retrieval", router.address, *behind)
        async with service_process("gateway", words, ready_services=()) as gateway:
            yield [Server(one.name, one.address, one.pid) for one in (router, gateway)]


@contextlib.asynccontextmanager
async def _all(store: Path, environ: dict[str, str]) -> AsyncIterator[list[Server]]:
    async with deployment(store, environ) as up:
        found = [Server(name, one["address"], one["pid"]) for name, one in up.processes.items()]
        yield [one for one in found if one.name != "redis"]


def _costs(servers: list[Server], brief: bool) -> Iterator[Cost]:
    with CallProber() as prober:
        for server in servers:
            cases = _routes if server.name == "gateway" else _methods
            # What is loaded by the first request of a kind is no cost of a request.
            for case in cases(server.address, 1 << 10, brief=True):
                case.send()
            for case in cases(server.address, 1 << 19 if brief else 1 << 21, brief):
                yield _cost(server, case, servers, prober)


def _cost(server: Server, case: Case, servers: list[Server], prober: CallProber) -> Cost:
    health = ProbedCall(server.address)
    if server.name == "gateway":
        health = ProbedCall(server.address, "/healthz", http=True)
    stalls: list[float] = []
    grown = wire = 0
    while not stalls or (stalls[-1] > _MOST_STALL_MS and len(stalls) < _TRIES):
        with prober.probing(health) as quiet:
            pass
        before = [memory(one.pid, "VmRSS") for one in servers]
        for one in servers:
            forget_peak(one.pid)
        with prober.probing(health) as during:
            wire = case.send()
        if not stalls:
            # What the first try took, the allocator may keep for the next one.
            most = [memory(one.pid, "VmHWM") for one in servers]
            grown = max(after - now for after, now in zip(most, before, strict=True))
        stalls.append((max(during) - median(quiet)) * 1e3)
    ratio = round(max(0, grown - _FREE_BYTES) / wire, 1)
    names = (server.name, case.name, case.payload)
    return Cost(*names, wire, grown >> 10, ratio, round(min(stalls), 1))


def _methods(address: str, size: int, brief: bool) -> Iterator[Case]:
    for service in (*_PUBLIC, *(one for one in SERVICES.values() if _serves(address, one))):
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            payloads = wire_payloads(method.input_type, size)
            for name, data in list(payloads.items())[: 1 if brief else None]:
                yield Case(path, name, partial(_upload, address, path, data))
                packed = partial(_upload, address, path, gzip.compress(data), "gzip")
                yield Case(path, f"{name}, gzip", packed)


def _serves(address: str, service: Any) -> bool:
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service.full_name)
        return bool(stub.Check(request, timeout=_REPLY_S))
    return False


def _upload(address: str, path: str, data: bytes, encoding: str = "") -> int:
    with HostilePeer(address, 1 << 20) as peer:
        peer.upload(path, data, _COMPRESSED_CALLS if encoding else 1, encoding)
        return peer.sent


def _routes(address: str, size: int, brief: bool) -> Iterator[Case]:
    for verb, path, message, lines in _doors(address):
        place, payloads = re.sub("{.*?}", "x", path), {"query": b""}
        if verb in ("POST", "PUT"):
            payloads = json_payloads(message, size, lines)
        else:
            place += "?" + "&".join(["page_size=1"] * (min(size, _HEADER_BYTES) // 12))
        kind = "application/x-ndjson" if lines else "application/json"
        head = f"{verb} {place} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\n"
        for name, data in list(payloads.items())[: 1 if brief else None]:
            yield Case(f"{verb} {path}", name, partial(_exchange, address, head, data))
            head_of_packed = f"{head}content-encoding: gzip\r\n"
            packed = partial(_exchange, address, head_of_packed, gzip.compress(data))
            yield Case(f"{verb} {path}", f"{name}, gzip", packed)


def _doors(address: str) -> Iterator[tuple[str, str, Descriptor | None, bool]]:
    """Yields verb, path, the message of the body, and whether it is one per line."""
    yield from ((one.verb, one.path, None, False) for one in PATHS)
    for verb, path in (("POST", http_endpoint.PATH), ("GET", "/healthz"), ("POST", "/nothing")):
        yield verb, path, None, False
    methods: dict[str, Any] = {
        method.name: method for service in SERVICES.values() for method in service.methods
    }
    with urllib.request.urlopen(f"http://{address}/openapi.json") as reply:
        paths = json.load(reply)["paths"]
    for path, operations in paths.items():
        for verb, operation in operations.items():
            message = methods[operation["operationId"]].input_type
            kinds = operation.get("requestBody", {}).get("content", {})
            lines = "application/x-ndjson" in kinds
            inner = message.fields_by_name["request"].message_type if lines else message
            yield verb.upper(), path, inner, lines


def _exchange(address: str, head: str, body: bytes) -> int:
    """Sends a request until it is answered; returns the bytes that the server has taken."""
    host, _, port = address.rpartition(":")
    request = f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    left = memoryview(request)
    with socket.create_connection((host, int(port)), _REPLY_S) as connection:
        with contextlib.suppress(ConnectionError):
            while left and not select.select((connection,), (), (), 0)[0]:
                left = left[connection.send(left[: 1 << 16]) :]
            while connection.recv(1 << 16):
                pass
    return len(request) - len(left)
