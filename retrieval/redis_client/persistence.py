"""The persistence settings of a Redis: whether it keeps what it has accepted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from retrieval.redis_client.cluster import cluster_of
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.servers import ask_servers

UNKNOWN: Final = "unknown"
# The only maxmemory-policy with which a full Redis drops nothing.
NO_EVICTION: Final = "noeviction"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPersistence:
    """The persistence settings of a Redis; "unknown" if it hides them, as managed services may.

    appendonly, appendfsync, maxmemory_policy: The Redis settings of the same name.
    waits: Whether WAITAOF can wait until a write is on disk.
    in_cluster: Whether it is a node of a Redis Cluster.
    misaddressed: Whether it is one, but was addressed as a single server.
    """

    version: str
    appendonly: str
    appendfsync: str
    maxmemory_policy: str
    waits: bool
    in_cluster: bool = False
    misaddressed: bool = False

    @property
    def evicts(self) -> bool:
        """Whether it drops data when it is full; only caches may be on such a server."""
        return self.maxmemory_policy not in (NO_EVICTION, UNKNOWN)

    @property
    def rank(self) -> int:
        """Its number among servers, from those that may lose most."""
        lasting = self.waits or self.appendfsync == "always"
        return (self.appendonly != "no") * 4 + (not self.evicts) * 2 + lasting

    @property
    def weakness(self) -> str:
        """What data can be lost, and the remedy; empty if none can, or if that is unknown."""
        if self.appendonly == "no":
            return "all data is lost when it restarts: set appendonly yes"
        if self.appendfsync not in ("always", UNKNOWN):
            return "a power failure loses the last second: set appendfsync always"
        if self.evicts:
            return f"it evicts data when it is full: set maxmemory-policy {NO_EVICTION}"
        return ""


async def read_persistence(
    client: Redis, needed_by: str = "sessions and budgets"
) -> RedisPersistence:
    """Reads the persistence settings of a Redis; of a cluster, those of its weakest primary.

    Primaries that do not answer are left out: the replicas that replace them are read then.

    Raises: NotReady: it does not answer.
    """
    async with translate_redis_errors(needed_by):
        found = await ask_servers(client, _read)
    weakest = min(found.values(), key=lambda one: one.rank)
    misaddressed = weakest.in_cluster and cluster_of(client) is None
    return replace(weakest, misaddressed=misaddressed)


async def _read(pipe: Any) -> RedisPersistence:
    pipe.ping()
    pipe.info()
    pipe.config_get("appendonly", "appendfsync", "maxmemory-policy")
    # Returns immediately: shows whether the command exists.
    pipe.execute_command("WAITAOF", 0, 0, 1)
    pong, info, config, waits = await pipe.execute(raise_on_error=False)
    if isinstance(pong, Exception):
        raise pong
    # A managed service may hide these.
    info, config = ({} if isinstance(one, Exception) else one for one in (info, config))
    appendonly = {0: "no", 1: "yes"}.get(info.get("aof_enabled"), UNKNOWN)
    return RedisPersistence(
        version=str(info.get("valkey_version") or info.get("redis_version") or UNKNOWN),
        appendonly=config.get("appendonly") or appendonly,
        appendfsync=config.get("appendfsync") or UNKNOWN,
        maxmemory_policy=config.get("maxmemory-policy") or info.get("maxmemory_policy") or UNKNOWN,
        waits=not isinstance(waits, Exception),
        in_cluster=info.get("cluster_enabled") == 1,
    )
