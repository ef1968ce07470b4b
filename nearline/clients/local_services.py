"""Services in a folder of one's own, as processes that belong to this one and end with it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

from nearline.errors import (
    Conflict,
    NearlineError,
    NotReady,
    SettingsError,
    StoreError,
    Unsupported,
)
from nearline.status import BY_REASON

# The pipe of `nearline.serving`, which clients do without: it closes when this process dies.
LIFELINE_VARIABLE: Final = "NEARLINE_LIFELINE_FD"
# No collection has a name with a dot.
_LOCK: Final = ".open"
# Of services elsewhere: these are for this machine alone.
_ELSEWHERE: Final = (
    "NEARLINE_TLS_",
    "NEARLINE_TOKEN",
    "NEARLINE_KEYS",
    "NEARLINE_READERS_ATTRIBUTE",
)
# Of the errors of a command.
_KINDS: Final = BY_REASON | {one.reason: one for one in (SettingsError, StoreError)}
_STOP_S: Final = 30.0
# How long services whose process was killed may take to end.
_LEFTOVERS_S: Final = 15.0
_POLL_S: Final = 0.05
_KEPT_LINES: Final = 20


class LocalServices:
    """The services of a folder: those of `nearline up`, on free ports of the loopback address.

    Whoever opens the same folder again in this process shares them; they end when the last of those
    has closed them, and at the latest with this process, however it dies.

    folder: Where everything is stored. address: "host:port" of the router.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        command = _command(folder)
        self.folder = folder
        self._users = 1
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._lock = _locked(folder)
        held, lifeline = os.pipe()
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(_ELSEWHERE)
        }
        self._process = subprocess.Popen(
            command,
            env={**environ, LIFELINE_VARIABLE: str(held)},
            pass_fds=(held, self._lock),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in a terminal is for the caller's code alone.
            start_new_session=True,
        )
        os.close(held)
        self._lifeline = lifeline
        self._ready = threading.Event()
        self.address = ""
        threading.Thread(target=self._read, name="nearline-services", daemon=True).start()
        if not self._ready.wait(timeout_s) or not self.address:
            self._end()
            raise self._failure(timeout_s)
        os.pwrite(self._lock, json.dumps([os.getpid(), self.address]).encode().ljust(100), 0)

    @classmethod
    def open(cls, folder: Path, timeout_s: float) -> LocalServices:
        """Starts the services of a folder, or shares those that run.

        Args:
            folder: Where everything is stored; created if there is none.
            timeout_s: Longest wait until they serve, in seconds.
        Raises: Unsupported: the services are not installed. Conflict: another process has opened
            the folder. StoreError: the folder cannot be used. NotReady: they do not serve in time.
        """
        folder = folder.expanduser().resolve()
        with _opening:
            found = _opened.get(folder)
            if found is not None and found._process.poll() is None:
                found._users += 1
                return found
            if found is not None:
                # They have died, and hold the folder still.
                del _opened[folder]
                found._end()
            made = _opened[folder] = cls(folder, timeout_s)
            return made

    def close(self) -> None:
        """Ends the services, unless others of this process use them."""
        with _opening:
            self._users -= 1
            if self._users <= 0 and _opened.get(self.folder) is self:
                del _opened[self.folder]
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._lifeline)
        os.close(self._lock)

    def _read(self) -> None:
        """Reads what the services report, until they end."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line)
                event = _parsed(line)
                if event.get("event") == "ready":
                    self.address = str(event["address"])
                    self._ready.set()
        self._ready.set()

    def _failure(self, timeout_s: float) -> NearlineError:
        for line in reversed(self._lines):
            event = _parsed(line)
            if "error" in event and "message" in event:
                kind = _KINDS.get(str(event["error"]), NotReady)
                return kind(f"the services of {self.folder} did not start: {event['message']}")
        said = "".join(self._lines)[-500:].strip()
        return NotReady(
            f"the services of {self.folder} did not serve within {timeout_s:g} s; the first start "
            f"may take minutes: raise timeout_s. They said: {said or 'nothing'}"
        )


_opening = threading.Lock()
_opened: dict[Path, LocalServices] = {}


def _leave_to_parent() -> None:
    """Releases what a fork inherited: services end with the process that opened them."""
    for services in _opened.values():
        os.close(services._lifeline)
        os.close(services._lock)
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _end_all() -> None:
    with _opening:
        for services in _opened.values():
            services._end()
        _opened.clear()


def _command(folder: Path) -> list[str]:
    if importlib.util.find_spec("nearline_cli") is None:
        raise Unsupported(
            "the services are not installed here, only the client; install them: "
            "pip install 'nearline-server[standard]'"
        )
    up = [sys.executable, "-m", "nearline_cli.main", "up", "--json", "--no-http", "--port", "0"]
    return [*up, "--store", str(folder)]


def _locked(folder: Path) -> int:
    """Locks a folder for this process and the services, which inherit it; returns the open file."""
    # Not on every system on which there is a client.
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be used: {error.strerror}; name another folder"
        ) from error
    end_s = time.monotonic() + _LEFTOVERS_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, address = _owner(lock)
            if time.monotonic() < end_s and not _runs(pid):
                time.sleep(_POLL_S)
                continue
            os.close(lock)
            owner = f"process {pid}" if pid else "another process"
            there = f"connect to it: Client({address!r}), or " if address else ""
            raise Conflict(f"{folder} is open in {owner}; {there}close it there") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps([os.getpid(), ""]).encode(), 0)
        return lock


def _owner(lock: int) -> tuple[int, str]:
    try:
        pid, address = json.loads(os.pread(lock, 200, 0))
        return int(pid), str(address)
    except (ValueError, TypeError):
        return 0, ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 0


def _parsed(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}
