"""A container as the files describe it, whichever file that is."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Wildcard and loopback addresses in arguments: containers share one network here, so both stand for
# the address that the container has.
_OWN_ADDRESSES = ("0.0.0.0", "127.0.0.1", "localhost")


class Mount(NamedTuple):
    """A folder or file of the host, at a path of the container."""

    source: Path
    read_only: bool = False


class HttpCheck(NamedTuple):
    """An HTTP request to the container; it succeeds with a status below 400."""

    port: int
    path: str = "/"


class GrpcCheck(NamedTuple):
    """A gRPC health check; service: empty asks for the overall health."""

    port: int
    service: str = ""


class TcpCheck(NamedTuple):
    """A connection that is accepted."""

    port: int


class ExecCheck(NamedTuple):
    """A command in the container that exits with 0."""

    words: tuple[str, ...]


Check = HttpCheck | GrpcCheck | TcpCheck | ExecCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check that is repeated.

    interval_s: Seconds between checks. failures, successes: Results in a row that change the state.
    start_period_s: Failures this soon after the start do not count. start_interval_s: Seconds
    between checks until the first success.
    """

    check: Check
    interval_s: float = 10.0
    timeout_s: float = 1.0
    failures: int = 3
    successes: int = 1
    delay_s: float = 0.0
    start_period_s: float = 0.0
    start_interval_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A process to run, with its limits and probes.

    name: Unique in its fleet. words: Entrypoint and command. environ: Its whole environment, apart
        from PATH. mounts: By path in the container. tmpfs: Paths with an empty file system in
        memory. user: "UID:GID"; empty runs as the user of the runner.
    ready: Decides whether others send it requests. alive: A failure restarts it. started: The
        others begin after its first success.
    pre_stop: Command that runs before the stop signal, within the grace period. grace_s: Seconds
        from the order to stop until SIGKILL. restarts: Whether it is restarted when it ends.
    memory_bytes: Its limit; 0 means none. It is not enforced here.
    """

    name: str
    words: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Mount] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ()
    user: str = ""
    ready: Probe | None = None
    alive: Probe | None = None
    started: Probe | None = None
    pre_stop: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    restarts: bool = True
    memory_bytes: int = 0


def at_address(text: str, address: str) -> str:
    """Returns a word of a command line with the container's address for wildcard and loopback."""
    host, colon, port = text.partition(":")
    if host in _OWN_ADDRESSES and (not colon or port.isdecimal()):
        return f"{address}{colon}{port}"
    return text
