"""Reads that are asked for at the same time go to Redis together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from nearline.errors import NearlineError, NotReady
from retrieval.redis_state import Redis, answering
from retrieval.users.records import NEEDED_BY

Command: TypeAlias = tuple[str, ...]
_MOST = 64
# As long as a list may wait for what is known of a user.
_TIMEOUT_S = 0.1


class _Asked(NamedTuple):
    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]


class Reads:
    """Sends commands that only read, for one event loop.

    While one batch is on its way, the next one gathers: a command of its own for each request costs
    the event loop twice as much as one in a batch of four.

    Args:
        client: Redis, which stays its owner's.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[_Asked] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, *commands: Command) -> list[Any]:
        """Gives the answers to some commands, in order.

        Raises: NotReady: Redis is away, slow, or answers an error.
        """
        asked = _Asked(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await asked.answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._send([one for one in batch if not one.answer.done()])
        finally:
            self._task = None
            for one in self._waiting:
                one.answer.cancel()

    async def _send(self, batch: Sequence[_Asked]) -> None:
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                answering(NEEDED_BY),
                self._client.pipeline(transaction=False) as pipe,
            ):
                for one in batch:
                    for command in one.commands:
                        pipe.execute_command(*command)
                replies = await pipe.execute(raise_on_error=False)
        except (NearlineError, TimeoutError) as error:
            failed = error if isinstance(error, NearlineError) else _slow()
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(failed)
            return
        at = 0
        for one in batch:
            mine = replies[at : at + len(one.commands)]
            at += len(one.commands)
            if one.answer.done():
                continue
            refused = next((reply for reply in mine if isinstance(reply, Exception)), None)
            if refused is None:
                one.answer.set_result(mine)
            else:
                one.answer.set_exception(await _named(refused))


async def _named(refused: Exception) -> Exception:
    try:
        async with answering(NEEDED_BY):
            raise refused
    except NearlineError as error:
        return error


def _slow() -> NotReady:
    return NotReady(
        f"Redis did not answer within {_TIMEOUT_S:g} s; {NEEDED_BY} need it: check --redis, or try "
        "again"
    )
