"""The bundled Redis as a supervised process: `python -m nearline_cli.local.redis_process`.

This process becomes the server itself, so that the supervisor has nothing else to watch and stop. A
small watcher process reports when the server answers, and stops it if the supervisor dies; it exits
with the server. The watcher runs this file without the packages that it does not need.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_POLL_S = 0.05
_TIMEOUT_S = 1.0


def main(argv: Sequence[str]) -> None:
    """Locks the folder, starts the watcher, and becomes the server."""
    from nearline.errors import NearlineError
    from nearline.serving import LIFELINE_VARIABLE
    from nearline_cli.local.bundled_redis import HOST, LOCK, command, find_program

    parser = argparse.ArgumentParser(prog="python -m nearline_cli.local.redis_process")
    parser.add_argument("--folder", type=Path, required=True, help="Data folder.")
    parser.add_argument("--port", type=int, required=True, help="Port on the loopback address.")
    options = parser.parse_args(argv)
    folder: Path = options.folder.absolute()
    try:
        program = find_program()
        # It contains what people asked.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(folder / LOCK, f"{HOST}:{options.port}")
    except NearlineError as error:
        _fail(error.message)
    except OSError as error:
        _fail(
            f"{folder} cannot hold the data of Redis: {error.strerror or error}; make it writable, "
            "name another Redis with --redis URL, or run without one: --no-redis"
        )
    alive, held = os.pipe()
    lifeline = int(os.environ.get(LIFELINE_VARIABLE, "-1"))
    subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", __file__),
            *map(str, (os.getpid(), HOST, options.port, alive, lifeline)),
        ],
        stdin=subprocess.DEVNULL,
        pass_fds=[number for number in (alive, lifeline) if number >= 0],
    )
    # The server keeps both while it lives: the lock of its folder, and the watcher's pipe.
    os.set_inheritable(lock, True)
    os.set_inheritable(held, True)
    if lifeline >= 0:
        os.set_inheritable(lifeline, False)
    os.execv(program, command(program, folder, options.port))


def _lock(file: Path, address: str) -> int:
    """Locks a file for this process and the server that it becomes; returns the open file.

    Two servers that write to one append-only file would silently destroy it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
        _fail(
            f"{file.parent} is in use by {owner}; stop the other `nearline up`, name another Redis "
            "with --redis URL (that one works, too), or run without one: --no-redis"
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()}, a Redis on redis://{address}/0\n".encode())
    return descriptor


def watch(server: int, host: str, port: int, alive: int, lifeline: int) -> None:
    """Logs when the server answers; stops it when the lifeline closes; returns when it has ended.

    Args:
        server: Pid of the server.
        host, port: Its address.
        alive: A pipe that closes when the server ends.
        lifeline: A pipe that closes when the supervisor ends, or -1 if there is none.
    """
    reported = False
    sources = [alive] if lifeline < 0 else [alive, lifeline]
    while True:
        readable, _, _ = select.select(sources, [], [], None if reported else _POLL_S)
        if alive in readable:
            return
        if lifeline in readable:
            os.kill(server, signal.SIGTERM)
            # Once is enough: it syncs its file and exits.
            sources.remove(lifeline)
            reported = True
        elif not reported and _answers(server, host, port):
            _log({"level": "info", "event": "serving", "address": f"{host}:{port}"})
            reported = True


def _answers(server: int, host: str, port: int) -> bool:
    """Returns whether this server has loaded its data; a different one may hold the port."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            with connection.makefile("rb") as reply:
                text = reply.read()
    except OSError:
        return False
    return text.startswith(b"+PONG\r\n") and b"process_id:%d\r\n" % server in text


def _log(fields: dict[str, str]) -> None:
    sys.stderr.write(json.dumps({"service": "redis", **fields}) + "\n")
    sys.stderr.flush()


def _fail(reason: str) -> NoReturn:
    _log({"level": "critical", "event": "failed", "reason": reason})
    sys.exit(2)


if __name__ == "__main__":
    if __spec__ is None:
        watch(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(sys.argv[1:])
