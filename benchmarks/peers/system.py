"""The interface of a measured system, and the process of its server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.dataset import Condition, PeerDataset
from nearline.errors import NotReady

_START_S = 120.0
_POLL_S = 0.05
_GRACE_S = 15.0
_LOG_BYTES = 2_000
_Client = TypeVar("_Client")


class System:
    """A measured system: its server, and a blocking client that the calling threads share.

    requirements: How to install program, the server, and packages, the client. filters: Whether it
    has filters. width: Width of searches, the setting that trades speed for recall.
    """

    name = ""
    requirements = ""
    program = sys.executable
    packages: Sequence[str] = ()
    filters = True
    width = 64

    def available(self) -> bool:
        """Returns whether the program of its server and the packages of its client are here."""
        return bool(shutil.which(self.program)) and all(map(find_spec, self.packages))

    def serve(self, dataset: PeerDataset, folder: Path) -> AbstractAsyncContextManager[object]:
        """Runs the server, with a client, for the duration of the block. folder: Empty, its own."""
        raise NotImplementedError

    def build(self, dataset: PeerDataset) -> None:
        """Writes all rows, and waits until they are indexed. Does nothing if `serve` did."""

    async def use_width(self, width: int) -> None:
        """Sets the width of searches."""
        self.width = width

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        """Returns the k best rows for a vector, best first."""
        raise NotImplementedError


@contextlib.asynccontextmanager
async def server_process(
    command: Sequence[str],
    folder: Path,
    connect: Callable[[], _Client],
    user: str | None = None,
) -> AsyncIterator[_Client]:
    """Runs a server for the duration of the block; yields what `connect` returns.

    Args:
        command: Program and arguments.
        folder: Its working directory, which also gets its log.
        connect: Raises while the server is starting.
        user: Runs the server as this user. Optional.
    Raises:
        NotReady: It ended, or did not serve in time; the text has its last output.
    """
    log = folder / "server.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=folder,
        )
    try:
        yield await _connected(process, log, connect)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE_S)
        finally:
            # Also its children, which may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _connected(
    process: asyncio.subprocess.Process, log: Path, connect: Callable[[], _Client]
) -> _Client:
    deadline = time.monotonic() + _START_S
    while True:
        # A server that is starting refuses in many ways.
        try:
            return await asyncio.to_thread(connect)
        except Exception as error:
            if process.returncode is not None or time.monotonic() > deadline:
                output = log.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
                raise NotReady(f"it does not serve; its last output:\n{output}") from error
        await asyncio.sleep(_POLL_S)
