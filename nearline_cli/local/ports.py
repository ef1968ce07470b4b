"""Ports of this machine: finds their owners, and reserves them for several processes."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.errors import SettingsError

if TYPE_CHECKING:
    import psutil

# Services of `nearline up`, with the distance of their default ports from the router's.
OFFSETS = {"retrieval": 0, "embedding": 1, "generation": 3, "redis": 4, "ingest": 5, "gateway": 6}


def check_port(host: str, port: int, flag: str) -> None:
    """Checks that nothing listens on a port.

    Args:
        host: Address to listen on.
        port: The port; 0 is always free.
        flag: Option that chooses this port, for the error.
    Raises:
        SettingsError: The port is taken (names the process if the system reveals it) or not
            allowed, or the address does not belong to this machine.
    """
    try:
        with socket.create_server((host, port), family=_family(host)):
            return
    except OverflowError as error:
        raise SettingsError(
            f"port {port} is above 65535; choose a lower one with {flag}"
        ) from error
    except PermissionError as error:
        raise SettingsError(
            f"port {port} is reserved for the administrator; choose one above 1023 with {flag}"
        ) from error
    except OSError as error:
        owner = _describe(_owner(port))
        if not owner and not answers(host, port):
            raise SettingsError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; "
                f"choose another address with --host, or another port with {flag}"
            ) from error
        raise SettingsError(
            f"port {port} on {host} is in use by {owner or 'another process'}; "
            f"stop it, or choose another port with {flag}"
        ) from error


def reserve_port(host: str, port: int) -> socket.socket:
    """Binds a port that several processes will share, so that no other program can take it.

    Call `check_port` first: a bound socket that does not listen gets no connection, and keeps out
    everything that does not share the port.

    Args:
        host: Address to listen on.
        port: The port; 0 takes a free one.
    """
    held = socket.socket(_family(host), socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((host, port))
    return held


def port_after(router: int, service: str, chosen: int | None = None) -> int:
    """Returns the chosen port of a service, or by default the one in `OFFSETS` after the router's.

    If the router's port is 0, the default is 0 as well: a free port.
    """
    if chosen is not None:
        return chosen
    return router + OFFSETS[service] if router else 0


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise SettingsError(
            f"host {host!r} is not known: {error.strerror}; use an address"
        ) from error


def answers(host: str, port: int) -> bool:
    """Returns whether anything listens on a port."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def run_by_up(port: int) -> bool:
    """Returns whether a process that `nearline up` supervises listens on a port."""
    import psutil

    words: list[str] = []
    with contextlib.suppress(psutil.Error):
        owner = _owner(port)
        supervisor = owner.parent() if owner else None
        words = supervisor.cmdline() if supervisor else []
    names = {Path(word).name for word in words}
    return bool(names & {"nearline", "nearline_cli.main"}) and bool(names & {"up", "demo"})


def _owner(port: int) -> psutil.Process | None:
    # Imported late: psutil is slow to import, and needed only here.
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return psutil.Process(connection.pid) if connection.pid else None
    return None


def _describe(owner: psutil.Process | None) -> str:
    import psutil

    if owner is None:
        return ""
    command = ""
    with contextlib.suppress(psutil.Error):
        command = " ".join(owner.cmdline()[:4]) or owner.name()
    return f"process {owner.pid} ({command})"
