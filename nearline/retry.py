"""Waiting for a service that says when it will have time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nearline.errors import Overloaded

_R = TypeVar("_R")


async def retry_while_overloaded(call: Callable[[], Awaitable[_R]]) -> _R:
    """Makes a call, again after as long as the service says for as long as it is overloaded.

    Raises: Overloaded: it does not say when to come back. Whatever else the call raises.
    """
    while True:
        try:
            return await call()
        except Overloaded as error:
            if error.retry_after_s is None:
                raise
            await asyncio.sleep(error.retry_after_s)
