"""Questions to each server of a Redis: the only one, or the primaries of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ResponseError

from retrieval.redis_client.cluster import cluster_of
from retrieval.redis_client.connection import REDIS_FAILURES, Redis

_T = TypeVar("_T")


async def ask_servers(
    client: Redis, ask: Callable[[Any], Awaitable[_T]], key: str = ""
) -> Mapping[str, _T]:
    """Returns a reply by server, host:port; the name of a single server is empty.

    Primaries of a cluster that do not answer are left out: replicas replace them.

    Args:
        client: Redis.
        ask: Sends commands in a pipeline to one server, and returns its reply.
        key: Optional; asks only the server that has this key.
    Raises: RedisError, OSError: none answers, or it refuses.
    """
    cluster = cluster_of(client)
    if cluster is None:
        async with client.pipeline(transaction=False) as only:
            return {"": await ask(only)}
    await cluster.initialize()
    nodes = [cluster.node_of(key)] if key else cluster.get_primaries()

    async def ask_node(node: ClusterNode) -> _T:
        async with cluster.node_pipeline(node) as pipe:
            return await ask(pipe)

    replies = await asyncio.gather(*map(ask_node, nodes), return_exceptions=True)
    found: dict[str, _T] = {}
    failures = []
    for node, reply in zip(nodes, replies, strict=True):
        if not isinstance(reply, BaseException):
            found[node.name] = reply
        elif isinstance(reply, REDIS_FAILURES):
            failures.append(reply)
        else:
            raise reply
    if not found:
        raise failures[0]
    return found


async def read_info(
    client: Redis, section: str | None = None, key: str = ""
) -> Mapping[str, Mapping[str, Any]]:
    """Returns the reply of INFO by server, empty if it is refused; see `ask_servers`.

    Args:
        client, key: See `ask_servers`.
        section: Optional; None means the default sections.
    Raises: RedisError, OSError: none answers.
    """

    async def ask(pipe: Any) -> Mapping[str, Any]:
        pipe.info(section)
        [info] = await pipe.execute(raise_on_error=False)
        if isinstance(info, Exception) and not isinstance(info, ResponseError):
            raise info
        return {} if isinstance(info, Exception) else dict(info)

    return await ask_servers(client, ask, key)
