"""Runs commands and Lua scripts of the queue in Redis."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from index_builder.ingest import keys
from nearline.errors import NotReady
from nearline.times import SECOND_US
from retrieval.redis_client.connection import Redis, UnknownScript, translate_redis_errors
from retrieval.redis_client.durability import Durability

# KEYS: one of the queue. Replies with the time of the server that has it: in a cluster, of one of
# several.
CLOCK = "return redis.call('TIME')"
NEEDED_BY = "the queue of documents and its jobs"


async def clock_us(client: Redis) -> int:
    """Returns the time of Redis, microseconds since 1970. Raises: NotReady."""
    async with translate_redis_errors(NEEDED_BY):
        return to_microseconds(await client.eval(CLOCK, 1, keys.META))


@contextlib.asynccontextmanager
async def open_pipeline(client: Redis) -> AsyncIterator[Any]:
    """Yields a pipeline of commands without a transaction.

    Raises: NotReady: Redis is unavailable.
    """
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        yield pipe


def to_microseconds(reply: Sequence[bytes]) -> int:
    """Converts the reply of CLOCK to microseconds since 1970."""
    seconds, microseconds = map(int, reply)
    return seconds * SECOND_US + microseconds


async def run_script(
    client: Redis,
    script: str,
    names: Sequence[str],
    arguments: Sequence[str | bytes | int],
    durability: Durability | None = None,
) -> Any:
    """Runs a script; returns its reply.

    Args:
        client: Redis.
        script: One of `scripts`.
        names, arguments: Keys and arguments that the script requires.
        durability: Waits until the changes are on disk. Optional; None skips the wait.
    Raises: NotReady: Redis is unavailable or refuses; the script may or may not have run.
    """
    digest = hashlib.sha1(script.encode()).hexdigest()
    async with translate_redis_errors(NEEDED_BY):
        try:
            return await _run(client, "EVALSHA", digest, names, arguments, durability)
        except UnknownScript:
            return await _run(client, "EVAL", script, names, arguments, durability)


async def _run(
    client: Redis,
    command: str,
    script: str,
    names: Sequence[str],
    arguments: Sequence[str | bytes | int],
    durability: Durability | None,
) -> Any:
    words = (command, script, len(names), *names, *arguments)
    if durability is None:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    async with client.pipeline(transaction=False) as pipe:
        pipe.execute_command(*words)
        [answer], durable = await durability.execute(pipe)
    if isinstance(answer, Exception):
        raise answer
    try:
        durability.check_reply(durable)
    except NotReady as error:
        raise NotReady(
            f"{error.message}; resubmit sources with the same job and offset",
            retry_after_s=error.retry_after_s,
        ) from error
    return answer
