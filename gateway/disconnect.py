"""Ends work for a client that has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

_T = TypeVar("_T")


class ClientGone(Exception):
    """The client has closed its connection; nobody waits for an answer."""


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Returns the result of some work, which is cancelled when the client closes its connection.

    Raises: ClientGone: it did. Errors of the work.
    """
    own = asyncio.current_task()
    assert own is not None
    awaited = True

    def cancel(ended: asyncio.Task[None]) -> None:
        # The work may have ended at the same time.
        if awaited and not ended.cancelled():
            own.cancel()

    gone = asyncio.ensure_future(_until_gone(request))
    gone.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and own.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        awaited = False
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
