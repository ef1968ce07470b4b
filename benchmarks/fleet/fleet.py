"""A network, host names, volumes and images, which the containers of a deployment share."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Self

from benchmarks.fleet.container_process import Folders, RunningContainer, Stop
from benchmarks.fleet.containers import Container, Mount
from nearline.errors import NotReady

START_S = 300.0
ROOT = Path(__file__).resolve().parents[2]
# The images lack torch, which a development environment has.
_ADDED = {"NEARLINE_EMBEDDING_BACKEND": "openvino"}
_MODELS = "/opt/nearline/models"
# Each fleet has a network 127.A.B.0; 127.0 is the machine's own.
_SECOND, _THIRD, _MOST = range(20, 250), range(256), 254


class Fleet:
    """Containers with addresses, names, volumes and logs of their own; an async context manager.

    stops: How each container ended that was stopped.

    Args:
        folder: A folder that is empty, or to be made: for volumes, logs and roots.
    """

    def __init__(self, folder: Path) -> None:
        self.stops: list[Stop] = []
        self.folders = Folders(folder / "roots", folder / "logs", folder / "hosts")
        self._volumes = folder / "volumes"
        for one in (self._volumes, self.folders.roots, self.folders.logs):
            one.mkdir(parents=True)
        # Containers run as another user; pytest's folders are private.
        for one in (folder, self._volumes, self.folders.roots):
            one.chmod(0o755)
        self.folders.hosts.touch()
        # Not the shared generator: tests seed it, and neighbours would draw the same network.
        draw = random.SystemRandom()
        self._network = f"127.{draw.choice(_SECOND)}.{draw.choice(_THIRD)}"
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(converted_model)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops all services; a plain fleet has none."""

    def take_address(self) -> str:
        """Returns an address that no container had. Raises: NotReady: there is none left."""
        number = next(self._numbers)
        if number > _MOST:
            raise NotReady(f"a fleet has {_MOST} addresses, and all were used; start another one")
        return f"{self._network}.{number}"

    def volume(self, name: str, user: str = "") -> Path:
        """Returns the folder of a volume; a new one belongs to the user "UID:GID" named first."""
        folder = self._volumes / name
        if not folder.exists():
            folder.mkdir()
            if user and os.getuid() == 0:
                owner, _, group = user.partition(":")
                os.chown(folder, int(owner), int(group or owner))
        return folder

    def write_hosts(self, names: Iterable[tuple[str, str]]) -> None:
        """Writes the hosts file from addresses with their names.

        It is written in place, since containers have this very file.
        """
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address, name in names)]
        with self.folders.hosts.open("r+", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
            stream.truncate()

    def prepare(
        self, container: Container, address: str = "", on_change: Callable[[], None] = lambda: None
    ) -> RunningContainer:
        """Returns a container, with what its image brings, that is yet to be started."""
        if _MODELS in container.environ.values():
            mounts = {**container.mounts, _MODELS: Mount(converted_model(), True)}
            container = replace(container, mounts=mounts)
        container = replace(container, environ={**container.environ, **_ADDED})
        place = address or self.take_address()
        return RunningContainer(container, place, self.folders, on_change)

    def start_client(
        self, name: str, module: str, arguments: Sequence[str] = ()
    ) -> RunningContainer:
        """Starts a program of this checkout, which finds the services by their names."""
        container = Container(
            name=name,
            words=("python", "-P", "-m", module, *arguments),
            environ={"PYTHONPATH": str(ROOT)},
            tmpfs=("/tmp",),
            grace_s=60.0,
            restarts=False,
        )
        client = RunningContainer(container, self.take_address(), self.folders)
        client.start()
        return client


@cache
def converted_model() -> Path:
    """Returns the folder of the converted model, which images contain besides packages."""
    folder = ROOT / ".cache" / "fleet"
    subprocess.run(
        [sys.executable, "-P", "-m", "embedding.convert", "--cache-dir", str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, **_ADDED},
    )
    return folder
