"""Bodies of requests: JSON, or a line of JSON per message; each of them is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from starlette.requests import Request

from gateway.problem import HttpError
from nearline.errors import DeadlineExceeded, InvalidRequest

# Of a transfer that stands still, and the slowest that goes on.
PATIENCE_S: Final = 30.0
_BYTES_PER_S: Final = 64 << 10
# What texts in other encodings begin with.
_MARKS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\x1f\x8b": "gzip"}


def transfer_s(size: int) -> float:
    """Returns the seconds that a client has to send or take so many bytes."""
    return PATIENCE_S + size / _BYTES_PER_S


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the body of a request.

    Args:
        request: The request.
        limit: Most bytes.
    Raises: HttpError: it has more, or is compressed.
    """
    given = request.headers.get("content-length", "")
    if given.isdigit() and int(given) > limit:
        raise _too_large(int(given), limit)
    parts: list[bytes] = []
    size = 0
    async for part in _parts(request):
        size += len(part)
        if size > limit:
            raise _too_large(size, limit)
        parts.append(part)
    return b"".join(parts)


async def read_lines(request: Request, limit: int) -> AsyncIterator[tuple[int, bytes]]:
    """Yields the lines of a body that are not blank, each with its number, from 1.

    Args:
        request: The request.
        limit: Most bytes of a line.
    Raises: HttpError: a line has more, or the body is compressed.
    """
    rest, number = bytearray(), 1
    async for part in _parts(request, b"\n"):
        # Only what is new is searched, and a byte is appended once, however small the parts are.
        first, *others = part.split(b"\n")
        rest += first
        for other in others:
            if len(rest) > limit:
                break
            if rest.strip():
                yield number, bytes(rest)
            rest, number = bytearray(other), number + 1
        if len(rest) > limit:
            raise _too_large(len(rest), limit, f"line {number}")
    if rest.strip():
        yield number, bytes(rest)


async def _parts(request: Request, end: bytes | None = None) -> AsyncIterator[bytes]:
    """Yields a body part by part.

    end: Ends a message of the body. Optional; without it, the body is one.
    Raises: DeadlineExceeded: a message comes too slowly. HttpError: it is compressed.
    """
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise _unsupported(coding)
    parts = request.stream()
    now = asyncio.get_running_loop().time
    until = now() + transfer_s(0)
    while True:
        try:
            async with asyncio.timeout_at(until):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineExceeded(
                f"the body came too slowly; send it, or each of its lines, within {PATIENCE_S:g} s "
                f"and a second more for each {_BYTES_PER_S >> 10} KiB"
            ) from None
        yield part
        is_end = end is not None and end in part
        until = now() + transfer_s(0) if is_end else until + len(part) / _BYTES_PER_S


def parse_json(data: bytes) -> Any:
    """Returns the value of a JSON text; of an empty one, an empty object.

    Raises: InvalidRequest: it is not JSON.
    """
    if not data.strip():
        return {}
    try:
        return orjson.loads(data)
    except (orjson.JSONDecodeError, RecursionError) as error:
        if (coding := _MARKS.get(data[:2])) is not None:
            raise _unsupported(coding) from error
        raise InvalidRequest(
            f"the body is not JSON: {error}; send an object in UTF-8, with the header "
            "content-type: application/json",
            field="body",
        ) from error


def _too_large(size: int, limit: int, what: str = "the body") -> HttpError:
    return HttpError(
        f"{what} has {size:,} bytes or more; {limit:,} are allowed (--max-body-bytes): send less "
        "at once",
        413,
        "body",
    )


def _unsupported(coding: str) -> HttpError:
    message = f"the body is encoded as {coding[:40]!r}; send it in UTF-8, not compressed"
    return HttpError(message, 415, "body")
