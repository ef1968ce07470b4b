"""A search of the Milvus image in a real Milvus: the small one of `make test-milvus`."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path

from deploy.images.engine import EngineError, run
from deploy.images.stack import Stack
from nearline_cli.local.processes import free_port

TARGET = "retrieval-milvus"
_PROBE_S = 1.0


def serve(stack: Stack, store: Path, folder: Path, *words: str) -> str:
    """Exports the newest snapshot to a Milvus; returns the address of a router over it.

    Args:
        stack: The services.
        store: Store with the snapshot.
        folder: Where the Milvus keeps its data.
        words: Arguments of the router.
    Raises: EngineError: there is no Milvus, or the router does not serve.
    """
    if not all(map(importlib.util.find_spec, ("pymilvus", "milvus_lite"))):
        raise EngineError(
            f"testing {TARGET} needs the small Milvus: run pip install 'nearline-server[milvus]'"
        )
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), *address]
    stack.start("milvus", command, lambda: _why_not(port))
    uri = f"http://127.0.0.1:{port}"
    listed = _nearline("snapshots", "list", "--json", "--store", str(store))
    snapshot = str(json.loads(listed.splitlines()[0])["snapshot"])
    _nearline(
        *("snapshots", "export", snapshot, "--to", "milvus", "--milvus-uri", uri),
        *("--store", str(store)),
    )
    milvus = ("--backend", "milvus", "--milvus-uri", uri)
    return stack.serve(TARGET, "retrieval", *milvus, *words)


def _nearline(*words: str) -> str:
    command = [sys.executable, "-P", "-m", "nearline_cli.main", *words]
    return run(command, f"nearline {words[0]} {words[1]}").decode()


def _why_not(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), _PROBE_S).close()
    except OSError as error:
        return str(error)
    return ""
