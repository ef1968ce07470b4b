"""A client that goes away: its work ends, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.requests import Request

from gateway.disconnect import unless_gone


class Client:
    """A request whose client may go away."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Any:
        await self.gone
        return {"type": "http.disconnect"}


async def test_a_client_that_goes_as_its_work_ends_does_not_cancel_what_follows() -> None:
    client = Client()
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer() -> str:
        done = await unless_gone(cast(Request, client), work)
        for _ in range(5):
            await asyncio.sleep(0)
        return done

    answering = asyncio.create_task(answer())
    for _ in range(5):
        await asyncio.sleep(0)
    client.gone.set_result(None)
    work.set_result("done")
    assert await answering == "done"
