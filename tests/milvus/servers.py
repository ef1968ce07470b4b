"""Real Milvus servers for tests: Lite, and the last standalone one that PyPI has, 2.3.5.

Each is a process group of its own that ends with the test session, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nearline.errors import DeadlineExceeded, InternalError, NotReady, Overloaded
from nearline_cli.local.processes import free_port

ROOT = Path(__file__).parents[2]
# Made by `make test-milvus`.
VENV = ROOT / ".venv-milvus"
_READY_S = 180.0
# Where its etcd talks to others of its kind.
_ETCD_PORT = 2380
_POLL_S = 0.1
# What a standalone server was must be forgotten before it is that again after a crash.
_SESSION_S = 10
# Its own look at ports takes one that it had a moment ago for taken, and goes to the next.
_STANDALONE = """
import socket
import milvus

def bound(self, port):
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None

milvus.MilvusServerConfig.try_bind_port = bound
milvus.main()
"""


class Absent(Exception):
    """The server is not available here; the text names reason and remedy."""


class Server:
    """A Milvus on a loopback port; data stay in its folder over `kill` and `start`.

    Args:
        command: What starts it.
        uri: Where it answers then.
        log: File for what it says.
    """

    def __init__(self, command: Sequence[str], uri: str, log: Path) -> None:
        self.uri = uri
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._alive: int | None = None

    @property
    def runs(self) -> bool:
        """Whether the server is running."""
        return self._process is not None

    def start(self) -> None:
        """Starts the server and waits until it can create a table."""
        # The end that is written to stands open, as their standard input, in all of them.
        self._alive, held = os.pipe()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=held, stdout=log, stderr=log, process_group=0
            )
        os.close(held)
        # The pipe closes when this process ends in whatever way, and the whole group goes then.
        self._watch = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                'cat >/dev/null; kill -s KILL -- "-$1"',
                "sh",
                str(self._process.pid),
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        asyncio.run(self._ready())

    def kill(self) -> None:
        """Kills the server, like a crash."""
        for process in (self._process, self._watch):
            if process is not None:
                # The standalone server outlives what started it, and stands in its group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.stdin.close()
        self._process = self._watch = None
        if self._alive is not None:
            # Only once the last of them is gone are its ports free.
            os.read(self._alive, 1)
            os.close(self._alive)
            self._alive = None

    async def _ready(self) -> None:
        # Imported late: pymilvus may be absent.
        from retrieval.milvus.client import MilvusClient
        from retrieval.milvus.collection_state import CollectionStates

        assert self._process is not None
        client = MilvusClient(self.uri)
        deadline = time.monotonic() + _READY_S
        try:
            while True:
                try:
                    await CollectionStates(client).create()
                    return
                except (NotReady, DeadlineExceeded, InternalError, Overloaded) as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        told = self._log.read_text("utf-8", "replace")[-2_000:]
                        raise RuntimeError(f"{self._command[0]} is not ready: {told}") from error
                await asyncio.sleep(_POLL_S)
        finally:
            await client.close()


def lite(folder: Path) -> Server:
    """Returns a Milvus Lite that keeps its data in a folder. Raises: Absent."""
    _need_client()
    port = free_port()
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "data")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return Server(command, f"http://127.0.0.1:{port}", folder / "lite.log")


def standalone(folder: Path) -> Server:
    """Returns a Milvus 2.3.5 that keeps its data in a folder. Raises: Absent.

    It listens on all addresses, at ports that are free: see `apart`.
    """
    _need_client()
    program = VENV / "bin" / "milvus-server"
    if not program.is_file():
        raise Absent(f"there is no {program.relative_to(ROOT)}: make test-milvus")
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", _ETCD_PORT)) == 0:
            raise Absent(
                f"its port {_ETCD_PORT}, which is fixed, is taken: stop what has it, or name a "
                "server with NEARLINE_TEST_MILVUS"
            )
    data = folder / "data"
    data.mkdir(exist_ok=True)
    # It unpacks its program there; once is enough.
    unpacked = VENV / "unpacked"
    unpacked.mkdir(exist_ok=True)
    if not (data / "bin").is_symlink():
        (data / "bin").symlink_to(unpacked)
    port = free_port()
    command = [str(VENV / "bin" / "python"), "-c", _STANDALONE, "--data", str(data)]
    command += ["--proxy-port", str(port), "--extra-config", f"common.session.ttl={_SESSION_S}"]
    return Server(command, f"http://127.0.0.1:{port}", folder / "standalone.log")


@contextlib.contextmanager
def one_start_at_a_time(kind: str) -> Iterator[None]:
    """Holds off other processes that start a 2.3.5, since each unpacks the program at first."""
    if kind == "lite":
        yield
        return
    with (VENV / "unpacked.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


KINDS = {"lite": lite, "2.3.5": standalone}


def _need_client() -> None:
    if not all(map(importlib.util.find_spec, ("pymilvus", "milvus_lite"))):
        raise Absent("its client is not installed: make test-milvus")
