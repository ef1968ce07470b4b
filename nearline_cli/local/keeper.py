"""Finds, starts and ends the keeper of a folder: the process that runs its services for later asks.

A keeper holds an exclusive lock on a file in the cache for as long as it lives, which the system
releases however it dies. So its record is trusted exactly while that lock is held; what a killed
keeper left there is ignored and replaced. A command that uses the services holds a shared lock on
another file meanwhile, and no keeper ends for idleness before it has that one for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nearline
from nearline.errors import NotReady, SettingsError, StoreError

ALIVE, USED, RECORD, LOG = "keeper.alive", "keeper.used", "keeper.json", "keeper.log"
READY, FAILED = "ready", "failed: "
IDLE_VARIABLE = "NEARLINE_KEEPER_IDLE_S"
LIFELINE_VARIABLE = "NEARLINE_LIFELINE_FD"  # See nearline.serving, which servers alone need.
# Of services elsewhere: those of a keeper are for this user alone.
_ELSEWHERE = ("NEARLINE_TLS_", "NEARLINE_TOKEN", "NEARLINE_KEYS", "NEARLINE_READERS_ATTRIBUTE")
_LOOK_S = 0.05
_STOP_S = 20.0


class Keeper(NamedTuple):
    """A running keeper.

    embedding, retrieval, generation: Addresses of its services. token: Their key. settings: Digest
    of the program and of the settings that it was started with.
    """

    pid: int
    embedding: str
    retrieval: str
    generation: str
    token: str
    settings: str


def prepare_cache(cache: Path) -> None:
    """Makes the folder of an index, which no other user may read.

    Raises:
        StoreError: It cannot be made, or belongs to another user.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if cache.stat().st_uid != os.geteuid():
            raise StoreError(
                f"{cache} belongs to another user; set NEARLINE_CACHE_DIR to a folder of your own"
            )
        cache.chmod(0o700)
    except OSError as error:
        raise _unwritable(cache, error) from error


@contextlib.asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Holds an exclusive lock on a file; waits for it as long as another process has it."""
    descriptor = _opened(path)
    try:
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            await asyncio.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def used(cache: Path) -> Iterator[None]:
    """Keeps the keeper from ending for idleness; that time begins at the end of the block."""
    descriptor = _opened(cache / USED)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        # A full disk, or a cache that was removed meanwhile, changes nothing for the answer.
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        os.close(descriptor)


def is_unused(cache: Path) -> bool:
    """Removes the record, and returns True, unless a command uses the keeper."""
    descriptor = _opened(cache / USED)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            return False
        (cache / RECORD).unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def find_keeper(cache: Path) -> Keeper | None:
    """Returns the keeper that is alive; None if there is none, or it is still starting."""
    try:
        descriptor = os.open(cache / ALIVE, os.O_RDWR)
    except OSError:
        return None
    try:
        if _try_lock(descriptor, fcntl.LOCK_SH):
            return None
        return Keeper(**json.loads((cache / RECORD).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    finally:
        os.close(descriptor)


async def start_keeper(cache: Path, note: Callable[[str], None]) -> Keeper:
    """Starts a keeper in a session of its own, and waits until its services serve.

    Args:
        cache: The folder of the index; the caller must hold its lock.
        note: Receives what the keeper reports meanwhile.
    Raises:
        SettingsError, NotReady: It did not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "nearline_cli.local.keeper_process", str(cache)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    reason = ""
    try:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        with contextlib.closing(pipe):
            async for line in reader:
                text = line.decode("utf-8", "replace").rstrip()
                if text == READY:
                    break
                if text.startswith(FAILED):
                    reason = text.removeprefix(FAILED)
                else:
                    note(text)
        if (keeper := find_keeper(cache)) is not None:
            # It lives on: this is not the end of a child that was forgotten.
            process.returncode = 0
            return keeper
    except BaseException:
        process.terminate()
        await asyncio.shield(asyncio.to_thread(process.wait))
        raise
    code = await asyncio.to_thread(process.wait)
    reason = reason or f"the keeper of the folder ended with code {code}"
    failure = SettingsError if code == 2 else NotReady
    raise failure(f"{reason}; {cache / LOG} has the log of its services")


async def stop_keeper(cache: Path) -> bool:
    """Ends the keeper and its services; returns whether there was one."""
    keeper = find_keeper(cache)
    if keeper is None:
        return False
    end = time.monotonic() + _STOP_S
    number = signal.SIGTERM
    while find_keeper(cache) == keeper:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper.pid, number)
        await asyncio.sleep(_LOOK_S)
        number = signal.SIGKILL if time.monotonic() > end else number
    return True


def settings_digest() -> str:
    """Returns a digest of this program and of the settings that a keeper would start with."""
    settings = {k: v for k, v in _environment().items() if k.startswith("NEARLINE_")}
    program = [nearline.__version__, nearline.__file__, sys.executable]
    return hashlib.sha256(json.dumps([program, sorted(settings.items())]).encode()).hexdigest()


def _environment() -> dict[str, str]:
    # Where `nearline` is imported from, a keeper is, too.
    root = str(Path(nearline.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    left_out = (*_ELSEWHERE, LIFELINE_VARIABLE)
    return {k: v for k, v in os.environ.items() if not k.startswith(left_out)} | {
        "PYTHONPATH": path
    }


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unwritable(cache: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{cache} cannot be written: {error.strerror}; set NEARLINE_CACHE_DIR to a folder that can"
    )
