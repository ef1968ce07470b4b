"""A running `nearline up` with keys, and TLS if wanted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from nearline.errors import NotReady

_COMMAND = (sys.executable, "-m", "nearline_cli.main")
_COMMAND_S = 60.0
_READY_S = 180.0
_STOP_S = 40.0


async def key_environ(folder: Path, *, tls: bool) -> dict[str, str]:
    """Returns the environment of services that demand a key, and of those that have one."""
    words = ("--file", str(folder / "keys.toml"), "--tenant", "*", "--right", "service")
    key = (await _made("keys", "create", *words))["key"]
    found = {**os.environ, "NEARLINE_KEYS": str(folder / "keys.toml"), "NEARLINE_TOKEN": key}
    if tls:
        made = await _made("certs", str(folder / "certs"))
        names = {"CERT": "certificate", "KEY": "key", "CA": "authority"}
        found |= {f"NEARLINE_TLS_{name}": made[field] for name, field in names.items()}
    return found


async def _made(*words: str) -> dict[str, str]:
    """Returns what a `nearline` command prints as JSON. Raises: NotReady: it fails."""
    process = await asyncio.create_subprocess_exec(
        *(*_COMMAND, *words, "--json"), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_COMMAND_S):
        out, _ = await process.communicate()
    if process.returncode:
        raise NotReady(f"nearline {' '.join(words)} failed; its lines are above")
    record: dict[str, str] = json.loads(out)
    return record


class Deployment:
    """A running `nearline up --json`.

    address: Of the router. processes: The newest line about each process that serves, by its name.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.processes: dict[str, dict[str, Any]] = {}
        self._ready = threading.Event()
        self.address = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    async def wait_ready(self) -> None:
        """Waits until everything serves. Raises: NotReady: it does not."""
        await asyncio.to_thread(self._ready.wait, _READY_S)
        if not self.address:
            raise NotReady("nearline up did not start; its own lines say why")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process by its name."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.processes[name]["pid"], number)

    def stop(self) -> None:
        """Stops it, and waits until all its processes have ended."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            record = json.loads(line)
            if record.get("pid"):
                known = self.processes.get(record["name"], {})
                self.processes[record["name"]] = known | record
            if record["event"] == "ready":
                self.address = str(record["address"])
                self._ready.set()
        self._ready.set()


@contextlib.asynccontextmanager
async def deployment(store: Path, environ: Mapping[str, str]) -> AsyncIterator[Deployment]:
    """Runs `nearline up` with a worker over a store for the duration of the block."""
    process = subprocess.Popen(
        (*_COMMAND, "up", "--store", str(store), "--port", "0", "--workers", "1", "--json"),
        env=dict(environ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        found = Deployment(process)
        try:
            await found.wait_ready()
            yield found
        finally:
            await asyncio.to_thread(found.stop)
