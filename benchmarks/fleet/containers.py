"""A container as the files describe it, whichever file that is."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    """A folder or file of the host, at a path of the container."""

    source: Path
    read_only: bool = False


class Check(NamedTuple):
    """A command that exits with 0, an HTTP request answered below 400, or gRPC's health.

    words: The command. port, path: Of the request; without a path, it is one of gRPC.
    """

    words: tuple[str, ...] = ()
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check that is repeated.

    interval_s: Seconds between checks. failures: In a row, that change the state. start_period_s:
    Failures this soon after the start do not count. start_interval_s: Seconds between checks until
    the container is ready.
    """

    check: Check
    interval_s: float = 10.0
    timeout_s: float = 1.0
    failures: int = 3
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
