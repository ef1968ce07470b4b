"""Bodies that come in many parts."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from gateway.body import read_body, read_lines
from nearline.errors import InvalidRequest


def in_parts(*parts: bytes) -> Request:
    """Returns a request whose body comes in parts, and which does not say its size."""
    coming = iter(parts)

    async def receive() -> Any:
        part = next(coming, b"")
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    return Request({"type": "http", "headers": []}, receive)


async def test_all_parts_of_a_body_together_are_limited() -> None:
    assert await read_body(in_parts(b"ab", b"cd", b"e"), 5) == b"abcde"
    with pytest.raises(InvalidRequest, match="the body has 6 bytes or more; 5 are allowed"):
        await read_body(in_parts(b"ab", b"cd", b"ef", b"gh"), 5)


async def test_each_line_of_a_body_is_limited_and_numbered_however_the_body_is_cut() -> None:
    lines = read_lines(in_parts(b"ab\n\n", b"cde", b"fg\nh"), 5)
    assert [one async for one in lines] == [(1, b"ab"), (3, b"cdefg"), (4, b"h")]
    for parts in ((b"a\nbcdef", b"g\nh\n"), (b"a\nbcdefg\nh\n",)):
        lines = read_lines(in_parts(*parts), 5)
        assert await anext(lines) == (1, b"a")
        with pytest.raises(InvalidRequest, match="line 2 has 6 bytes or more; 5 are allowed"):
            await anext(lines)
