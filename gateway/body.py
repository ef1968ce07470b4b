"""Bodies of requests: JSON, or a line of JSON per message; each of them is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from starlette.requests import Request

from nearline.errors import DeadlineExceeded, InvalidRequest

_PART_S: Final = 30.0


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the body of a request.

    Args:
        request: The request.
        limit: Most bytes.
    Raises: InvalidRequest: it has more.
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
    Raises: InvalidRequest: a line has more.
    """
    rest, number = b"", 0
    async for part in _parts(request):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            number += 1
            if len(line) > limit:
                raise _too_large(len(line), limit, f"line {number}")
            if line.strip():
                yield number, line
        if len(rest) > limit:
            raise _too_large(len(rest), limit, f"line {number + 1}")
    if rest.strip():
        yield number + 1, rest


async def _parts(request: Request) -> AsyncIterator[bytes]:
    """Yields a body part by part. Raises: DeadlineExceeded: none has come for half a minute."""
    parts = request.stream()
    while True:
        try:
            async with asyncio.timeout(_PART_S):
                yield await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineExceeded(
                f"no part of the body has come for {_PART_S:g} s; send it without pauses"
            ) from None


def parse_json(data: bytes) -> Any:
    """Returns the value of a JSON text; of an empty one, an empty object.

    Raises: InvalidRequest: it is not JSON.
    """
    if not data.strip():
        return {}
    try:
        return orjson.loads(data)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"the body is not JSON: {error}; send an object in UTF-8, with the header "
            "content-type: application/json",
            field="body",
        ) from error


def _too_large(size: int, limit: int, what: str = "the body") -> InvalidRequest:
    return InvalidRequest(
        f"{what} has {size:,} bytes or more; {limit:,} are allowed (--max-body-bytes): send less "
        "at once",
        field="body",
    )
