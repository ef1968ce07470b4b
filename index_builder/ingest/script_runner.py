"""Runs the scripts of the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from nearline.errors import NotReady
from nearline.times import SECOND_US
from retrieval.redis_client.connection import Redis, UnknownScript, translate_redis_errors
from retrieval.redis_client.durability import Durability

NEEDED_BY = "the queue of documents and its jobs"


async def clock_us(client: Redis) -> int:
    """Returns the time of Redis in microseconds since 1970; use within `translate_redis_errors`."""
    return to_microseconds(await client.time())


def to_microseconds(said: tuple[int, int]) -> int:
    """Returns what Redis says to TIME in microseconds since 1970."""
    seconds, microseconds = said
    return seconds * SECOND_US + microseconds


async def run_script(
    client: Redis,
    script: str,
    keys: Sequence[str],
    arguments: Sequence[str | bytes | int],
    durability: Durability | None = None,
) -> Any:
    """Runs a script; gives what it answers.

    Args:
        client: Redis.
        script: Of `scripts`.
        keys, arguments: What it wants.
        durability: Waits until what it did is on disk; None: it need not be.
    Raises: NotReady: Redis is away or refuses; whether the script was run is not known.
    """
    digest = hashlib.sha1(script.encode()).hexdigest()
    async with translate_redis_errors(NEEDED_BY):
        try:
            return await _run(client, "EVALSHA", digest, keys, arguments, durability)
        except UnknownScript:
            return await _run(client, "EVAL", script, keys, arguments, durability)


async def _run(
    client: Redis,
    command: str,
    script: str,
    keys: Sequence[str],
    arguments: Sequence[str | bytes | int],
    durability: Durability | None,
) -> Any:
    words = (command, script, len(keys), *keys, *arguments)
    if durability is None:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    async with client.pipeline(transaction=False) as pipe:
        pipe.execute_command(*words)
        pipe.execute_command(*durability.command)
        answer, kept = await pipe.execute(raise_on_error=False)
    if isinstance(answer, Exception):
        raise answer
    try:
        durability.judge(kept)
    except NotReady as error:
        raise NotReady(
            f"{error.message}; for sources that means with the same job and offset",
            retry_after_s=error.retry_after_s,
        ) from error
    return answer
