"""Plain calls of async clients, by one event loop in a thread."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from nearline.errors import Unsupported


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C")
_Wrapped = TypeVar("_Wrapped", covariant=True)
_Closing = TypeVar("_Closing", bound=_Closable, covariant=True)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Batch = TypeVar("_Batch")


class ClientLoop:
    """One event loop in one thread for the whole process.

    grpc.aio has one poller per process; a loop per client would starve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        # That of its thread, which a fork does not have; 0 while there is none.
        self._pid = 0

    def start(self, work: Coroutine[Any, Any, _R]) -> Future[_R]:
        """Starts a coroutine.

        Raises: Unsupported: this process is a fork of one that has called services.
        """
        if self._pid not in (0, os.getpid()):
            work.close()
            raise Unsupported(
                "this process was forked from one that has a client: neither that client nor a new "
                "one works here. Start processes by multiprocessing.get_context('spawn'), or "
                "'forkserver', and make a client in each"
            )
        with self._lock:
            if self._loop is None:
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="nearline-client", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Runs a coroutine, and returns its result."""
        future = self.start(work)
        try:
            return future.result()
        finally:
            # Cancels the call where the caller is interrupted; does nothing once it has ended.
            future.cancel()

    async def run_async(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Runs a coroutine for a caller on another loop, which goes on meanwhile."""
        return await asyncio.wrap_future(self.start(work))


client_loop = ClientLoop()


class BlockingCalls(Generic[_Wrapped]):
    """Base of what has the methods and errors of an async object, as plain calls.

    Args:
        connect: Makes the async object; called on its event loop.
    """

    def __init__(self, connect: Callable[[], _Wrapped]) -> None:
        async def connected() -> _Wrapped:
            return connect()

        self._client: _Wrapped = client_loop.run(connected())

    @classmethod
    def _of(cls, connect: Callable[[], _Wrapped]) -> Self:
        client = cls.__new__(cls)
        BlockingCalls.__init__(client, connect)
        return client


def async_object(calls: BlockingCalls[_Wrapped]) -> _Wrapped:
    """Returns the async object behind plain calls; its coroutines run on `client_loop` alone."""
    return calls._client


class BlockingClient(BlockingCalls[_Closing]):
    """Base of the blocking clients.

    Safe to share between threads. Close it, or use it as a context manager.

    Args:
        connect: Makes the async client; called on its event loop.
    """

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        client_loop.run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def on_client_loop(
    method: Callable[_P, Coroutine[Any, Any, _R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Returns an async function that may be awaited on any loop; it runs on `client_loop`."""

    @functools.wraps(method)
    async def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await client_loop.run_async(method(*args, **kwargs))

    return called


def blocking(method: Callable[_P, Coroutine[Any, Any, _R]]) -> Callable[_P, _R]:
    """Returns an async function as one that waits for the result."""

    @functools.wraps(method)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return client_loop.run(method(*args, **kwargs))

    return called


def call(
    method: Callable[Concatenate[_C, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[BlockingCalls[_C], _P], _R]:
    """Returns a method of an async client as a method that waits for the reply."""

    @functools.wraps(method)
    def called(self: BlockingCalls[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return client_loop.run(method(self._client, *args, **kwargs))

    return called


def stream(
    method: Callable[Concatenate[_C, _P], AsyncGenerator[_R, None]],
) -> Callable[Concatenate[BlockingCalls[_C], _P], Iterator[_R]]:
    """Returns a stream of an async client as an iterator; leaving it cancels the call."""

    @functools.wraps(method)
    def streamed(self: BlockingCalls[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_R]:
        values = method(self._client, *args, **kwargs)

        async def following() -> tuple[_R, ...]:
            async for value in values:
                return (value,)
            return ()

        try:
            while value := client_loop.run(following()):
                yield value[0]
        finally:
            # Not awaited: while the interpreter exits, the loop's thread no longer runs.
            client_loop.start(_close(values))

    return streamed


def feed(
    method: Callable[Concatenate[_C, AsyncIterator[_Batch], _P], _R],
) -> Callable[Concatenate[_C, Iterable[_Batch], _P], _R]:
    """Returns a method that takes its batches from a plain iterable."""

    @functools.wraps(method)
    def fed(client: _C, batches: Iterable[_Batch], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(client, _read(batches), *args, **kwargs)

    # They may be named, too, which the type cannot say.
    return fed  # type: ignore[return-value]


async def _read(batches: Iterable[_Batch]) -> AsyncIterator[_Batch]:
    """Reads batches in a thread, since reading may take a while."""
    reader = iter(batches)
    while (batch := await asyncio.to_thread(next, reader, None)) is not None:
        yield batch


async def _close(values: AsyncGenerator[Any, None]) -> None:
    await values.aclose()
