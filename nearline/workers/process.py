"""A child process that answers calls with arrays.

    process = WorkerProcess.start(WorkerCommand("package.worker", ["cuda:0"]))
    reply = process.call("search", arrays=[queries], timeout_s=5.0)

The module of the child calls `serve_calls` with a function per method. A GPU is used in such a
process: an error of CUDA stays with the process that saw it, and FAISS ends that process. The
service goes on without the GPU, see `nearline.workers.supervisor`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_LENGTH = struct.Struct("<I")
# Headers name a method and small values; a longer one is a defect.
_MAX_HEADER_BYTES = 1 << 20
# A process that waits for a broken device cannot be ended until the driver gives up.
_END_S = 5.0
# Names the sockets of the child, in order.
_SOCKETS = "NEARLINE_WORKER_SOCKETS"


class WorkerUnavailable(Exception):
    """A worker cannot answer; the message is a reason to show to callers."""


class WorkerError(Exception):
    """A function of the worker raised an exception; the worker goes on.

    kind: Name of the exception's class, for example "OutOfMemoryError".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Message(NamedTuple):
    """A call or a reply: small values that JSON can express, and arrays of any size."""

    values: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = ()


Handler: TypeAlias = Callable[[Message], Message]
_Buffer = TypeVar("_Buffer", bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How a worker is started: `python -m MODULE ARGUMENTS`.

    channels: Calls that the worker answers at once; each channel has a thread in the child.
    start_s: Seconds in which the child must be ready; imports of CUDA libraries take some.
    environment: Variables to set in the child.
    """

    module: str
    arguments: Sequence[str] = ()
    channels: int = 1
    start_s: float = 120.0
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerProcess:
    """A child process; any thread may call it once it is ready.

    Args:
        command: How to start it.
    Raises: WorkerUnavailable: the system cannot start it; names the reason.
    """

    def __init__(self, command: WorkerCommand) -> None:
        self._command = command
        pairs = [socket.socketpair() for _ in range(command.channels)]
        self._sockets = [ours for ours, _ in pairs]
        self._locks = [threading.Lock() for _ in pairs]
        numbers = [theirs.fileno() for _, theirs in pairs]
        try:
            # -P: no module in the current folder may shadow ours. The child ends when its input
            # does, so it never outlives this process.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", command.module, *command.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=numbers,
                env={
                    **os.environ,
                    **command.environment,
                    _SOCKETS: ",".join(map(str, numbers)),
                },
            )
        except OSError as error:
            self._close_sockets()
            raise WorkerUnavailable(f"its process could not be started ({error})") from error
        finally:
            for _, theirs in pairs:
                theirs.close()

    @classmethod
    def start(cls, command: WorkerCommand) -> Self:
        """Starts a process and waits until it is ready.

        Raises: As `wait_ready`; the process has then ended.
        """
        process = cls(command)
        try:
            process.wait_ready()
        except BaseException:
            process.close()
            raise
        return process

    def wait_ready(self) -> None:
        """Waits until each channel answers.

        Raises: WorkerError: it is not able to work. WorkerUnavailable: it ended, or takes too long.
        """
        for channel in range(self._command.channels):
            self.call("ready", timeout_s=self._command.start_s, channel=channel)

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Sequence[NDArray[Any]] = (),
        *,
        timeout_s: float,
        channel: int = 0,
    ) -> Message:
        """Calls a function of the child and waits for its reply; calls of a channel queue up.

        Args:
            method: Name of the function.
            values: JSON values.
            arrays: Arrays in C order.
            timeout_s: Seconds for the call, without the wait for earlier calls.
            channel: Number of the channel.
        Raises: WorkerError: the function raised. WorkerUnavailable: the child is gone or did not
            answer in time; it must be closed then, since its reply may still arrive.
        """
        sock = self._sockets[channel]
        with self._locks[channel]:
            end = time.monotonic() + timeout_s
            try:
                _send(sock, method, Message(values or {}, arrays), end)
                kind, reply = _receive(sock, end)
            except TimeoutError:
                raise WorkerUnavailable(f"it did not answer within {timeout_s:g} s") from None
            except (OSError, EOFError) as error:
                raise WorkerUnavailable(self._end_reason()) from error
        if kind == "error":
            raise WorkerError(reply.values["kind"], reply.values["message"])
        return reply

    def close(self) -> None:
        """Ends the child; calls in progress fail."""
        self._process.kill()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            _log.error("worker does not end", extra={"pid": self.pid})
        if self._process.stdin is not None:
            self._process.stdin.close()
        for sock in self._sockets:
            # Wakes threads that wait for a reply; they hold the lock of their channel.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for sock, lock in zip(self._sockets, self._locks, strict=True):
            with lock:
                sock.close()

    def end_reason(self) -> str:
        """Returns how the child ended; empty while it runs."""
        return "" if self._process.poll() is None else self._end_reason()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _end_reason(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "its connection was closed"
        if code < 0:
            return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"its process ended with status {code}"


def serve_calls(handlers: Mapping[str, Handler]) -> None:
    """Answers the calls of the parent until it goes; to be called in the child.

    Each channel has a thread, so handlers may run at once. An exception of a handler is the reply.

    Args:
        handlers: The functions, by name. "ready" is answered here.
    """
    # They may be sent to a whole group of processes, of which the parent goes on to answer what it
    # has begun. The child ends when its input does.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    handlers = {"ready": lambda message: Message({}), **handlers}
    channels = [socket.socket(fileno=int(one)) for one in os.environ.pop(_SOCKETS).split(",")]
    for channel in channels:
        threading.Thread(target=_serve_channel, args=(channel, handlers), daemon=True).start()
    while sys.stdin.buffer.read(1):
        pass
    # Not sys.exit: a thread may hang in a library.
    os._exit(0)


def _serve_channel(channel: socket.socket, handlers: Mapping[str, Handler]) -> None:
    while True:
        try:
            method, call = _receive(channel, math.inf)
        except (EOFError, OSError):
            return
        kind = "reply"
        try:
            reply = handlers[method](call)
        except Exception as error:
            text = str(error).strip().partition("\n")[0]
            kind, reply = "error", Message({"kind": type(error).__name__, "message": text})
        del call
        _send(channel, kind, reply, math.inf)
        # Keep no arrays alive while waiting for the next call.
        del reply


def _send(sock: socket.socket, kind: str, message: Message, end: float) -> None:
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    shapes = [(array.dtype.str, array.shape) for array in arrays]
    header = json.dumps([kind, message.values, shapes]).encode()
    _limit(sock, end)
    sock.sendall(_LENGTH.pack(len(header)) + header)
    for array in arrays:
        if array.size:
            _limit(sock, end)
            sock.sendall(array.reshape(-1).view(np.uint8).data)


def _receive(sock: socket.socket, end: float) -> tuple[str, Message]:
    (size,) = _LENGTH.unpack(_read(sock, bytearray(_LENGTH.size), end))
    if size > _MAX_HEADER_BYTES:
        raise EOFError
    kind, values, shapes = json.loads(_read(sock, bytearray(size), end))
    arrays = [np.empty(shape, dtype) for dtype, shape in shapes]
    for array in arrays:
        if array.size:
            _read(sock, array.reshape(-1).view(np.uint8).data, end)
    return kind, Message(values, arrays)


def _read(sock: socket.socket, buffer: _Buffer, end: float) -> _Buffer:
    view, at = memoryview(buffer), 0
    while at < len(view):
        _limit(sock, end)
        count = sock.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return buffer


def _limit(sock: socket.socket, end: float) -> None:
    if end == math.inf:
        return
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)
