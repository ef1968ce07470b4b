"""States of the services of this machine and of what they depend on: Redis, and the disks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gateway import health as gateway_health
from nearline import health
from nearline.errors import NearlineError
from nearline_cli.local.disk import describe_shortage, free_bytes
from nearline_cli.local.ports import OFFSETS, answers

SERVING, AWAY, FULL, FAILING, OK = "serving", "away", "full", "failing", "ok"
CLOCKS_DIFFER, ABSENT, REFUSED = "clocks differ", "not running", "refused"
# States of what runs, but has a problem.
PROBLEMS = frozenset({FULL, FAILING, CLOCKS_DIFFER, REFUSED})
_TIMEOUT_S = 2.0
# Machines that ask a time server differ by milliseconds.
_CLOCKS_DIFFER_S = 60.0
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
    from retrieval.redis_client.servers import ask_servers
    from retrieval.redis_client.urls import redis_address

    address = redis_address(url)
    try:
        async with (
            connect(url, timeout_s=_TIMEOUT_S, retries=0) as client,
            translate_redis_errors("live changes, sessions and the queue"),
        ):
            servers = await ask_servers(client, _ask)
    except NearlineError as error:
        return DependencyState(address, AWAY, error.message)
    states = []
    for name, (clock_s, info, folder) in servers.items():
        state, about = _judge(info, clock_s - now_s())
        if len(servers) > 1:
            about = f"{name}: {about}"
        local = (name or address).rpartition(":")[0] in _LOOPBACK
        found = DependencyState(address, state, about, folder if local else None)
        if state != SERVING:
            return found
        states.append(found)
    return states[0]._replace(about="; ".join(one.about for one in states))


async def _ask(pipe: Any) -> tuple[int, dict[str, Any], Path | None]:
    """Returns the time of a server in seconds, its INFO, and its folder."""
    pipe.time()
    pipe.info()
    pipe.config_get("dir")
    clock, info, config = await pipe.execute(raise_on_error=False)
    if isinstance(clock, Exception):
        raise clock
    folder = None
    # A managed service may hide these.
    if not isinstance(config, Exception) and config:
        text = next(iter(config.values()))
        folder = Path(text.decode() if isinstance(text, bytes) else str(text))
    return clock[0], {} if isinstance(info, Exception) else info, folder


def now_s() -> float:
    """Returns the time of this machine, in seconds since 1970."""
    return time.time()


def _judge(info: dict[str, Any], ahead_s: float = 0.0) -> tuple[str, str]:
    from retrieval.redis_client.persistence import NO_EVICTION

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
                f"{memory} are used, so it refuses writes; remove dead letters (nearline "
                "letters list), compact (nearline compact), or raise maxmemory"
            )
    if abs(ahead_s) > _CLOCKS_DIFFER_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        return CLOCKS_DIFFER, (
            f"its clock is {abs(ahead_s):,.0f} s {side} that of this machine; let both ask a time "
            "server (NTP), since times of expiry and ages are wrong by as much"
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


def service_states(host: str, port: int) -> dict[str, DependencyState]:
    """Returns the state of each service of `nearline up` but Redis by name, running or not.

    Args:
        host: Address that the services listen on.
        port: Port of the router; 0: no service has a known port.
    """
    found: dict[str, DependencyState] = {}
    for name, offset in OFFSETS.items() if port else ():
        if name == "redis":
            continue  # See `redis_state`.
        address = f"{host}:{port + offset}"
        if not answers(host, port + offset):
            found[name] = DependencyState(address, ABSENT, "")
            continue
        why = (gateway_health if name == "gateway" else health).check(address)
        found[name] = DependencyState(address, FAILING if why else SERVING, why)
    return found
