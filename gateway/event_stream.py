"""Replies that are streams: their events, and the first one, which is read before they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from starlette.responses import StreamingResponse

_T = TypeVar("_T")


def event_response(events: AsyncIterator[bytes]) -> StreamingResponse:
    """Returns a response of server-sent events, which proxies must neither keep nor collect."""
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def begun(first: _T | None, others: AsyncIterator[_T]) -> AsyncIterator[_T]:
    """Yields a first reply that was read already, then the others; nothing if it is None.

    It was read before, so that an error in its place has a status of its own.
    """
    if first is not None:
        yield first
        async for one in others:
            yield one
