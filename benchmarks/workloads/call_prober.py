"""A caller in a process of its own, whose latencies say what others do to a server."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc

HEALTH = "/grpc.health.v1.Health/Check"
_PAUSE_S = 0.002
_TIMEOUT_S = 10.0


class ProbedCall(NamedTuple):
    """A call of gRPC; or of HTTP, a POST if it has a body. ca: File; empty: there is no TLS."""

    address: str
    path: str = HEALTH
    body: bytes = b""
    http: bool = False
    token: str = ""
    ca: str = ""


class CallProber:
    """Repeats one call at a time, over one connection; use it as a context."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, end = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(end,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    @contextlib.contextmanager
    def probing(self, call: ProbedCall, least: int = 10) -> Iterator[list[float]]:
        """Repeats a call during the block; its latencies are in the list afterwards.

        A call that fails counts as ten seconds. least: Calls, even if the block ends sooner.
        """
        latencies: list[float] = []
        self._pipe.send((call, least))
        self._pipe.recv()
        try:
            yield latencies
        finally:
            self._pipe.send(())
            latencies += self._pipe.recv()


def _serve(pipe: Connection) -> None:
    while (order := pipe.recv()) is not None:
        call, least = order
        latencies: list[float] = []
        with contextlib.closing(_http(call) if call.http else _grpc(call)) as calls:
            for took in calls:
                if not latencies:
                    # The connection is open.
                    pipe.send(())
                latencies.append(took)
                if pipe.poll(_PAUSE_S) and len(latencies) > least:
                    break
        pipe.recv()
        pipe.send(latencies[1:])


def _timed(send: Callable[[], object]) -> Generator[float]:
    while True:
        start = time.perf_counter()
        try:
            send()
        except (grpc.RpcError, OSError, http.client.HTTPException):
            yield _TIMEOUT_S
        else:
            yield time.perf_counter() - start


def _grpc(call: ProbedCall) -> Generator[float]:
    root = Path(call.ca).read_bytes() if call.ca else None
    secure = grpc.secure_channel(call.address, grpc.ssl_channel_credentials(root)) if root else None
    with secure or grpc.insecure_channel(call.address) as channel:
        method: Any = channel.unary_unary(call.path)
        bearer = (("authorization", f"Bearer {call.token}"),) if call.token else ()
        yield from _timed(lambda: method(call.body, timeout=_TIMEOUT_S, metadata=bearer))


def _http(call: ProbedCall) -> Generator[float]:
    context = ssl.create_default_context(cafile=call.ca) if call.ca else None
    secure = http.client.HTTPSConnection(call.address, timeout=_TIMEOUT_S, context=context)
    plain = http.client.HTTPConnection(call.address, timeout=_TIMEOUT_S)
    headers = {"authorization": f"Bearer {call.token}", "content-type": "application/json"}
    with contextlib.closing(secure if call.ca else plain) as connection:

        def exchange() -> None:
            verb = "POST" if call.body else "GET"
            connection.request(verb, call.path, call.body or None, headers if call.token else {})
            reply = connection.getresponse()
            reply.read()
            if reply.status >= 400:
                raise OSError(f"{call.path} answered with {reply.status}")

        yield from _timed(exchange)
