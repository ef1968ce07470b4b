"""States of what the services depend on: Redis, and the disks of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nearline.errors import NearlineError
from nearline_cli.local.disk import describe_shortage, free_bytes

SERVING, AWAY, FULL, FAILING, OK = "serving", "away", "full", "failing", "ok"
_TIMEOUT_S = 2.0
# Above this share of maxmemory, the next writes may be refused.
_FULL_SHARE = 0.95
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class DependencyState(NamedTuple):
    """State of a Redis or a disk.

    state: serving or ok, or what is wrong. about: Details, and the remedy for what is wrong.
    folder: Folder of a Redis on this machine; None if unknown.
    """

    address: str
    state: str
    about: str
    folder: Path | None = None


async def redis_state(url: str) -> DependencyState:
    """Asks a Redis whether it answers, accepts writes, and has memory left."""
    from retrieval.redis_client.connection import connect, translate_redis_errors

    parts = urlsplit(url)
    address = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    try:
        async with (
            connect(url, timeout_s=_TIMEOUT_S, retries=0) as client,
            translate_redis_errors("live changes, sessions and the queue"),
            client.pipeline(transaction=False) as pipe,
        ):
            pipe.ping()
            pipe.info()
            pipe.config_get("dir")
            pong, info, config = await pipe.execute(raise_on_error=False)
            if isinstance(pong, Exception):
                raise pong
    except NearlineError as error:
        return DependencyState(address, AWAY, error.message)
    # A managed service may hide these.
    details: dict[str, Any] = {} if isinstance(info, Exception) else info
    folder = None
    if parts.hostname in _LOOPBACK and not isinstance(config, Exception) and config:
        text = next(iter(config.values()))
        folder = Path(text.decode() if isinstance(text, bytes) else str(text))
    state, about = _judge(details)
    return DependencyState(address, state, about, folder)


def _judge(info: dict[str, Any]) -> tuple[str, str]:
    from retrieval.redis_client.connection import NO_EVICTION

    version = str(info.get("valkey_version") or info.get("redis_version") or "of unknown version")
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if info.get("aof_last_write_status", "ok") != "ok":
        return FAILING, (
            "its last write to disk failed, so it refuses writes; make room on its disk, and see "
            "its log"
        )
    policy = info.get("maxmemory_policy", NO_EVICTION)
    if policy != NO_EVICTION:
        return FAILING, (
            f"its maxmemory-policy is {policy}, so it would evict acknowledged data when it is "
            f"full, and writes are refused; set maxmemory-policy {NO_EVICTION}"
        )
    memory = f"{used >> 20:,} MiB"
    if limit:
        memory += f" of {limit >> 20:,} MiB"
        if used >= _FULL_SHARE * limit:
            return FULL, (
                f"{memory} are used, so it refuses writes; remove dead letters (nearline jobs "
                "dead), compact (nearline compact), or raise maxmemory"
            )
    return SERVING, f"Redis {version}, {memory}"


def disk_states(folders: Iterable[Path]) -> list[DependencyState]:
    """Returns the state of each disk that has one of the folders; missing folders are left out."""
    found: dict[int, DependencyState] = {}
    for folder in folders:
        try:
            device = os.stat(folder).st_dev
        except OSError:
            continue
        free = free_bytes(folder)
        if device not in found and free is not None:
            problem = describe_shortage(folder, free)
            about = problem or f"{free / (1 << 30):,.1f} GiB are free"
            state = FULL if problem else OK
            found[device] = DependencyState(str(folder), state, about, folder)
    return list(found.values())
