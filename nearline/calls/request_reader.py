"""Reads the requests of calls, one by one or as a stream, and decodes them once they may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import grpc

from nearline.access.caller import ANONYMOUS
from nearline.access.method_guard import current_caller
from nearline.errors import DeadlineExceeded, InvalidRequest

if TYPE_CHECKING:
    from nearline.access.rate_limiter import RunningCall

# gRPC keeps what has arrived of a request, of any method up to the size of the largest one. So the
# one request of a call arrives at this rate, and few of a sender arrive at once.
_LEAST_BYTES_PER_S: Final = 1 << 19
_MOST_ARRIVING: Final = 8

# By the tenant, or the connection of a caller without a credential, and the size of the method.
_arriving: WeakValueDictionary[tuple[str, int], asyncio.Semaphore] = WeakValueDictionary()


class RequestReader:
    """Reads the requests of one method from gRPC as bytes.

    A guard identifies the caller first: until a request is read, gRPC takes no more of it than the
    window of its stream.

    Args:
        decode: Returns a request from its bytes.
        method: Name of the method, for errors.
        most_bytes: Largest request.
        idle_s: Longest wait for a request of a stream, in seconds.
        note_size: Called with the size of each request.
    """

    def __init__(
        self,
        decode: Any,
        method: str,
        most_bytes: int,
        idle_s: float,
        note_size: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._decode = decode
        self._method = method
        self._most_bytes = most_bytes
        self._idle_s = idle_s
        self._arrival_s = min(idle_s, 1.0 + most_bytes / _LEAST_BYTES_PER_S)
        self._note_size = note_size

    async def read(self, context: Any) -> bytes:
        """Returns the one request of a call.

        Raises: InvalidRequest: the call has none. DeadlineExceeded: it did not come in time.
        """
        caller = current_caller()
        sender = context.peer() if caller is ANONYMOUS else caller.tenant
        new = asyncio.Semaphore(_MOST_ARRIVING)
        async with _arriving.setdefault((sender, self._most_bytes), new):
            data = await self._next(
                context,
                self._arrival_s,
                f"the request did not arrive within {self._arrival_s:.1f} s, and so the call was "
                "ended; send it in parts, or over a faster network",
            )
        if data is None:
            raise InvalidRequest(f"the call has no request; send one of {self._method}")
        return data

    def requests(
        self,
        context: Any,
        data: bytes | None,
        counted: RunningCall | None = None,
        turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> Any:
        """Returns a decoded request, or yields those of a stream.

        Args:
            data: The request; None for a stream.
            counted: As in `decode`.
            turn: Lasts from the arrival of a request of a stream until the next one is asked for.
        """
        return self._stream(context, counted, turn) if data is None else self.decode(data, counted)

    async def _stream(
        self, context: Any, counted: RunningCall | None, turn: Any
    ) -> AsyncIterator[Any]:
        late = (
            f"the call sent no request for {self._idle_s:g} s, and so was ended "
            "(--stream-idle-s); open another one when there is more to send"
        )
        while (data := await self._next(context, self._idle_s, late)) is not None:
            async with turn():
                # A request that is named here stays in memory while the next one comes.
                decoded, data = [self.decode(data, counted)], None
                yield decoded.pop()

    def decode(self, data: bytes, counted: RunningCall | None = None) -> Any:
        """Returns a decoded request.

        Args:
            counted: Has the limits of the caller. Optional.
        Raises: InvalidRequest: it is too large, or cannot be decoded.
        """
        size = len(data)
        self._note_size(size)
        if size > self._most_bytes:
            raise InvalidRequest(
                f"the request has {size:,} bytes, and one of {self._method} may have "
                f"{self._most_bytes:,}; send it in parts"
            )
        if counted is not None:
            counted.check_size(size)
        try:
            return self._decode(data)
        except Exception:
            raise InvalidRequest(
                f"the {size:,} bytes are not a request of {self._method}: they are damaged, nested "
                "more than 100 messages deep, or contain text that is not UTF-8; build requests "
                "with the code generated from Nearline's proto files"
            ) from None

    async def _next(self, context: Any, wait_s: float, late: str) -> bytes | None:
        """Returns the next request; None after the last one. late: The error after `wait_s`."""
        left_s = context.time_remaining()
        try:
            if left_s is not None and left_s <= wait_s:
                # The deadline ends the call; a timer would cost as much as reading does.
                data = await context.read()
            else:
                async with asyncio.timeout(wait_s):
                    data = await context.read()
        except TimeoutError:
            self._note_size(self._most_bytes)
            raise DeadlineExceeded(late) from None
        return None if data is grpc.aio.EOF else data
