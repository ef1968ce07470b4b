"""Bodies of requests: JSON, or a line of JSON per message; each of them is bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from starlette.requests import Request

from gateway.problem import HttpError
from nearline.counts import add_to
from nearline.errors import DeadlineExceeded, InvalidRequest, Overloaded

# Of a transfer that stands still, and the slowest that goes on.
PATIENCE_S: Final = 30.0
_BYTES_PER_S: Final = 64 << 10
# Kept of unfinished bodies; one client address has half of it. Those up to the second size do not
# count: --max-requests bounds them, and large bodies must not keep searches out.
_MOST_UNFINISHED: Final = 256 << 20
_SMALL_BYTES: Final = 64 << 10
_RETRY_AFTER_S: Final = 1.0
# White space of JSON; other control characters are not.
_BLANK: Final = b" \t\r\n"
# What texts in other encodings begin with.
_MARKS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\x1f\x8b": "gzip"}

# By client address; in all under "".
_unfinished: Counter[str] = Counter()


def transfer_s(size: int) -> float:
    """Returns the seconds that a client has to send or take so many bytes."""
    return PATIENCE_S + size / _BYTES_PER_S


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the body of a request.

    Args:
        request: The request.
        limit: Most bytes.
    Raises: HttpError: it has more, or is compressed. Overloaded: too much of others is arriving.
    """
    given = request.headers.get("content-length", "")
    if given.isdigit() and int(given) > limit:
        raise _too_large(int(given), limit)
    body, held = bytearray(), 0
    try:
        async for part in _parts(request):
            body += part
            if len(body) > limit:
                raise _too_large(len(body), limit)
            held = _hold(request, held, len(body))
        return bytes(body)
    finally:
        _hold(request, held, 0)


async def read_lines(request: Request, limit: int) -> AsyncIterator[tuple[int, bytes]]:
    """Yields the lines of a body that are not blank, each with its number, from 1.

    Args:
        request: The request.
        limit: Most bytes of a line.
    Raises: HttpError: a line has more, or the body is compressed. Overloaded: as `read_body`.
    """
    rest, number, held = bytearray(), 1, 0
    try:
        async for part in _parts(request, b"\n"):
            # Only what is new is searched, and a byte is appended once, however small parts are.
            first, *others = part.split(b"\n")
            rest += first
            for other in others:
                if len(rest) > limit:
                    break
                if rest.strip(_BLANK):
                    yield number, bytes(rest)
                rest, number = bytearray(other), number + 1
            if len(rest) > limit:
                raise _too_large(len(rest), limit, f"line {number}")
            held = _hold(request, held, len(rest))
        if rest.strip(_BLANK):
            yield number, bytes(rest)
    finally:
        _hold(request, held, 0)


def _hold(request: Request, held: int, size: int) -> int:
    """Counts what has arrived of an unfinished body; returns the bytes that count.

    held: What it returned for this body before.
    Raises: Overloaded: too much of all bodies has arrived, or of those of the client's address.
    """
    size = max(0, size - _SMALL_BYTES)
    address = request.client.host if request.client else "unknown"
    for whose, most in ((address, _MOST_UNFINISHED // 2), ("", _MOST_UNFINISHED)):
        if size > held and _unfinished[whose] + size - held > most:
            raise Overloaded(
                f"{_unfinished[whose]:,} bytes of unfinished bodies {whose and f'of {whose} '}have "
                f"arrived, and {most:,} are kept; retry later, and send fewer or smaller bodies at "
                "once",
                retry_after_s=_RETRY_AFTER_S,
            )
    for whose in (address, ""):
        add_to(_unfinished, whose, size - held)
    return size


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
    if not data.strip(_BLANK):
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
