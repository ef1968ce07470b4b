"""Finds, starts and ends the keeper of a folder: the process that runs its services for later asks.

A keeper holds an exclusive lock on its record for as long as it lives, which the system releases
however it dies: a record counts exactly while it is locked. It has the pid alone while the keeper
starts, then everything, and nothing once the keeper ends. A command that uses the services holds a
shared lock on another file, and no keeper ends for idleness before it has that one for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nearline
from nearline.errors import NotReady, SettingsError, StoreError

RECORD, LOG, USED = "keeper.json", "keeper.log", "keeper.used"
LIFELINE_VARIABLE = "NEARLINE_LIFELINE_FD"  # See nearline.serving, which servers alone need.
# Of services elsewhere: those of a keeper are for this user alone.
_ELSEWHERE = ("NEARLINE_TLS_", "NEARLINE_TOKEN", "NEARLINE_KEYS", "NEARLINE_READERS_ATTRIBUTE")
_LOOK_S = 0.05
_STOP_S = 20.0
# A converted model takes most of these.
_SPARE_BYTES = 128 << 20


class Keeper(NamedTuple):
    """A keeper that is alive.

    pid: 0 if it is not known, for a moment. settings: Digest of the program and of the settings
    that it was started with; empty, like what follows, while it starts or ends. embedding,
    retrieval, generation: Addresses of its services. token: Their key.
    """

    pid: int = 0
    settings: str = ""
    embedding: str = ""
    retrieval: str = ""
    generation: str = ""
    token: str = ""


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
async def locked(path: Path) -> AsyncIterator[int]:
    """Yields a file that is locked for this process; waits as long as another one has it."""
    with _opened(path) as descriptor:
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            await asyncio.sleep(_LOOK_S)
        yield descriptor


@contextlib.contextmanager
def used(cache: Path) -> Iterator[None]:
    """Keeps the keeper from ending for idleness; that time begins at the end of the block."""
    with _opened(cache / USED) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            yield
        finally:
            # A full disk, or a cache that was removed meanwhile, changes nothing for the answer.
            with contextlib.suppress(OSError):
                os.utime(descriptor)


def retire(cache: Path) -> bool:
    """Empties the record, and returns True, unless a command uses the keeper."""
    with _opened(cache / USED) as descriptor:
        unused = _try_lock(descriptor, fcntl.LOCK_EX)
        if unused:
            os.truncate(cache / RECORD, 0)
        return unused


def find_keeper(cache: Path) -> Keeper | None:
    """Returns the keeper that is alive, also while it starts or ends; None if there is none."""
    try:
        descriptor = os.open(cache / RECORD, os.O_RDWR)
    except OSError:
        return None
    with open(descriptor, encoding="utf-8") as record:
        if _try_lock(descriptor, fcntl.LOCK_SH):
            return None
        try:
            return Keeper(**json.load(record))
        except (ValueError, TypeError):
            return Keeper()


async def settled_keeper(cache: Path) -> Keeper | None:
    """Returns the keeper that serves with the settings of this command; None if there is none.

    One that starts for a command that was killed, or that ends, is waited for; one of other
    settings, or of another version, is ended.
    """
    while (keeper := find_keeper(cache)) is not None:
        if keeper.settings == settings_digest():
            return keeper
        if keeper.settings:
            await stop_keeper(cache)
        await asyncio.sleep(_LOOK_S)
    return None


async def start_keeper(cache: Path, note: Callable[[str], None]) -> Keeper:
    """Starts a keeper in a session of its own, and waits until its services serve.

    Args:
        cache: The folder of the index; the caller must hold its lock.
        note: Receives a line for the user.
    Raises:
        SettingsError, NotReady: It did not start. StoreError: The disk is full.
    """
    note("starting the services of the folder; they stay for later questions")
    with _opened(cache / RECORD) as record, tempfile.TemporaryFile(dir=cache) as output:
        # The pid in it may be another process's by now.
        os.truncate(record, 0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nearline_cli.local.keeper_process", str(cache)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                keeper = find_keeper(cache)
                if keeper is not None and keeper.settings:
                    if keeper.pid == process.pid:
                        # It lives on: this is not the end of a child that was forgotten.
                        process.returncode = 0
                    return keeper
                await asyncio.sleep(_LOOK_S)
        finally:
            # After Ctrl-C, or if one was faster that had been started by a command that was killed.
            if process.returncode is None:
                process.terminate()
                await asyncio.shield(asyncio.to_thread(process.wait))
        output.seek(0)
        reason = " ".join(output.read().decode("utf-8", "replace").split())
    reason = reason or f"the keeper of the folder ended with code {process.returncode}"
    if shutil.disk_usage(cache).free < _SPARE_BYTES:
        raise StoreError(
            f"the disk of {cache} is full ({reason}); free {_SPARE_BYTES >> 20} MiB, or set "
            "NEARLINE_CACHE_DIR to a folder elsewhere"
        )
    reason = f"{reason}; {cache / LOG} has the log of its services"
    if process.returncode == 2:
        raise SettingsError(reason)
    raise NotReady(f"{reason}; if the index is damaged, remove {cache} to build it again")


async def stop_keeper(cache: Path) -> bool:
    """Ends the keeper and its services, and waits for that; returns whether there was one."""
    keeper = find_keeper(cache)
    there_was, pid, end = keeper is not None, 0, time.monotonic() + _STOP_S
    while keeper is not None and (not pid or keeper.pid in (0, pid)):
        with contextlib.suppress(ProcessLookupError):
            if keeper.pid and not pid:
                # Once: a second signal would break off its orderly end.
                pid = keeper.pid
                os.kill(pid, signal.SIGTERM)
            elif pid and time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_LOOK_S)
        keeper = find_keeper(cache)
    return there_was


def ended(cache: Path) -> NotReady:
    """Returns the error of a command whose keeper, or a service of it, ended under it."""
    return NotReady(f"a service of the folder ended; ask again, or see the log {cache / LOG}")


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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unwritable(cache: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{cache} cannot be written: {error.strerror}; set NEARLINE_CACHE_DIR to one that can"
    )
