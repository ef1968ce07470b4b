"""Decodes the requests of calls, one by one or from a stream; errors are raised by the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from nearline.errors import DeadlineExceeded, InvalidRequest


class _Undecodable:
    """Takes the place of a request that could not be decoded, so that the guard refuses it."""

    def __init__(self, method: str, size: int) -> None:
        self.error = InvalidRequest(
            f"the {size:,} bytes are not a request of {method}: they are damaged, nested more than "
            "100 messages deep, or contain text that is not UTF-8; build requests with the code "
            "generated from Nearline's proto files"
        )


def tolerant_decoder(
    decode: Callable[[bytes], Any] | None,
    method: str,
    note_size: Callable[[int], None] = lambda size: None,
) -> Callable[[bytes], Any] | None:
    """Returns a decoder that never raises: gRPC would reply UNKNOWN and log a traceback.

    Args:
        decode: Decodes a request. None, of a method that takes bytes, is returned as it is.
        method: Name of the method, for errors.
        note_size: Called with the size of each request.
    """
    if decode is None:
        return None

    def tolerant(data: bytes) -> Any:
        note_size(len(data))
        try:
            return decode(data)
        except Exception:
            return _Undecodable(method, len(data))

    return tolerant


def decoded_request(request: Any) -> Any:
    """Returns a request. Raises: InvalidRequest: it could not be decoded."""
    if type(request) is _Undecodable:
        raise request.error
    return request


async def decoded_stream(idle_s: float, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yields the requests of a stream.

    Args:
        idle_s: Longest wait for the next request, in seconds.
    Raises: InvalidRequest: one could not be decoded. DeadlineExceeded: none came for too long.
    """
    reader = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(idle_s):
                request = await anext(reader)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineExceeded(
                f"the stream sent no request for {idle_s:g} s, and so was ended "
                "(--stream-idle-s); open another one when there is more to send"
            ) from None
        yield decoded_request(request)
