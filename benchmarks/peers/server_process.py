"""Servers of other makers as processes: started, awaited, and ended by id with their children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from nearline.errors import NotReady

_POLL_S = 0.05
_GRACE_S = 15.0
_GONE_S = 10.0
_LOG_BYTES = 2_000


@contextlib.asynccontextmanager
async def server_process(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    timeout_s: float = 120.0,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Runs a server, in a process group of its own, for the duration of the block.

    Args:
        command: Program and arguments.
        log: File for its output.
        ready: Returns whether it serves; called in a thread until it returns True.
        timeout_s: Seconds to wait until it serves.
        user: Runs it as this user, if this process is root's. None keeps the user.
        stop: Signal that ends it; it is killed 15 seconds later.
        environ: Environment variables in addition to this process's own.
    Raises:
        NotReady: It ended, or did not serve in time; the text has its last output.
    """
    # All processes of the group hold the write end, so its end shows that they are gone.
    alive, held = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=held,
                stdout=output,
                stderr=output,
                process_group=0,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                env={**os.environ, **(environ or {})},
                cwd=log.parent,
            )
    except OSError as error:
        os.close(alive)
        raise NotReady(f"{command[0]} cannot be started: {error}") from error
    finally:
        os.close(held)
    try:
        await _wait_ready(process, log, ready, timeout_s)
        yield
    finally:
        # Ends also if this process is interrupted a second time.
        await asyncio.shield(asyncio.to_thread(_end, process, alive, stop))


async def _wait_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(ready):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
            raise NotReady(f"{log.stem} does not serve; its last output:\n{said}")
        await asyncio.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes], alive: int, stop: signal.Signals) -> None:
    try:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        # Children may outlive the process that started them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        select.select([alive], [], [], _GONE_S)
    finally:
        os.close(alive)
