"""Compose without an engine: up, run, scale, stop and replace, with processes for containers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.fleet.compose_file import ComposeService, read_compose, read_volume
from benchmarks.fleet.container_process import Executed, RunningContainer, Stop, start_client
from benchmarks.fleet.containers import Container, Mount
from benchmarks.fleet.network import Addresses, write_hosts
from benchmarks.fleet.volumes import fleet_folders, owned_folder
from nearline.errors import NotFound, NotReady

START_S = 300.0


class ComposeFleet:
    """The services of a Compose file.

    Args:
        file: The file; the Dockerfile is next to it.
        folder: An empty folder for volumes, logs and roots.
        images: Folders that images bring, by their path in the container.
        environ: Variables that the file refers to. Optional; None means those of this process.
        added: Variables of every container besides those of the file. Optional.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        images: Mapping[str, Path],
        environ: Mapping[str, str] | None = None,
        added: Mapping[str, str] | None = None,
    ) -> None:
        self._added = added or {}
        self.services = read_compose(file, environ)
        self.stops: list[Stop] = []
        self._file = file
        self._images = images
        self._volumes = folder / "volumes"
        self._folders = fleet_folders(folder)
        self._addresses = Addresses()
        self._running: dict[str, list[RunningContainer]] = {}
        self._jobs = itertools.count(1)
        self._write_hosts()

    def containers(self, service: str) -> list[RunningContainer]:
        """Returns the running containers of a service, the oldest first."""
        return list(self._running.get(service, ()))

    def all_containers(self) -> list[RunningContainer]:
        """Returns all running containers."""
        return [one for group in self._running.values() for one in group]

    def address(self, service: str, port: int) -> str:
        """Returns host:port of the first container of a service."""
        return f"{self._running[service][0].address}:{port}"

    async def up(
        self,
        services: Iterable[str] = (),
        *,
        profiles: Sequence[str] = (),
        scale: Mapping[str, int] | None = None,
        timeout_s: float = START_S,
    ) -> None:
        """Starts services and what they need, and waits until all are healthy.

        services: Names; empty starts all without a profile, or with one of `profiles`.
        scale: Containers by service; one each otherwise.
        """
        chosen = list(services) or [
            name
            for name, service in self.services.items()
            if not service.profiles or set(service.profiles) & set(profiles)
        ]
        starting: dict[str, asyncio.Task[None]] = {}

        def begin(name: str) -> asyncio.Task[None]:
            if name not in starting:
                wanted = (scale or {}).get(name, max(1, len(self.containers(name))))
                needed = [begin(one) for one in self.services[name].needs]
                starting[name] = group.create_task(self._start(name, wanted, needed, timeout_s))
            return starting[name]

        async with asyncio.TaskGroup() as group:
            for name in chosen:
                begin(name)

    async def run(
        self, service: str, words: Sequence[str], volumes: Sequence[str] = (), *, deps: bool = True
    ) -> Executed:
        """Runs a command in a new container of a service, after what it needs, until it ends."""
        if deps:
            await self.up(self.services[service].needs)
        one = self.services[service]
        mounts = dict(read_volume(text, self._file.parent) for text in volumes)
        container = replace(
            self._container(one, f"{service}-run-{next(self._jobs)}", mounts),
            words=(*one.entrypoint, *words) if words else one.container.words,
            ready=None,
            restarts=False,
        )
        job = RunningContainer(container, self._addresses.take(), self._folders)
        job.start()
        try:
            code = await job.wait()
        except asyncio.CancelledError:
            await job.stop()
            raise
        return Executed(code, job.log.read_text("utf-8", "replace"))

    def start_client(
        self, name: str, module: str, arguments: Sequence[str] = ()
    ) -> RunningContainer:
        """Starts a program of this checkout, which finds the services by their names."""
        return start_client(name, module, arguments, self._addresses.take(), self._folders)

    async def replace(self, service: str, timeout_s: float = START_S) -> list[Stop]:
        """Replaces the containers of a service, as `up --force-recreate --no-deps` does.

        Each is stopped first, and the next one has another address.
        """
        stops = []
        for old in self.containers(service):
            stops.append(await self._stop(service, old))
            new = self._launch(service, old.name)
            await new.wait_ready(timeout_s)
        return stops

    async def stop(self, services: Iterable[str]) -> list[Stop]:
        """Stops services together."""
        pairs = [(name, one) for name in services for one in self.containers(name)]
        return list(await asyncio.gather(*(self._stop(name, one) for name, one in pairs)))

    async def down(self) -> list[Stop]:
        """Stops everything: first what others do not need; returns how each container ended."""
        stops: list[Stop] = []
        while self._running:
            needed = {one for name in self._running for one in self.services[name].needs}
            stops += await self.stop([name for name in self._running if name not in needed])
        return stops

    async def _start(
        self, name: str, wanted: int, needed: Sequence[asyncio.Task[None]], timeout_s: float
    ) -> None:
        for task in needed:
            await task
        for other, condition in self.services[name].needs.items():
            await self._until(other, condition)
        for old in self.containers(name)[wanted:]:
            await self._stop(name, old)
        for number in range(len(self.containers(name)), wanted):
            self._launch(name, f"{name}-{number + 1}")
        for container in self.containers(name):
            await container.wait_ready(timeout_s)

    async def _until(self, name: str, condition: str) -> None:
        for container in self.containers(name):
            match condition:
                case "service_healthy":
                    await container.wait_ready(START_S)
                case "service_completed_successfully":
                    if code := await container.wait():
                        raise NotReady(f"{name} ended with {code}:\n{container.tail()}")

    def _launch(self, service: str, name: str) -> RunningContainer:
        container = self._container(self.services[service], name, {})
        running = RunningContainer(container, self._addresses.take(), self._folders)
        self._running.setdefault(service, []).append(running)
        self._write_hosts()
        running.start()
        return running

    async def _stop(self, service: str, container: RunningContainer) -> Stop:
        stop = await container.stop()
        self.stops.append(stop)
        self._running[service].remove(container)
        if not self._running[service]:
            del self._running[service]
        self._write_hosts()
        return stop

    def _container(
        self, service: ComposeService, name: str, volumes: Mapping[str, tuple[str, bool]]
    ) -> Container:
        one = service.container
        mounts = {}
        for path, (source, read_only) in {**service.volumes, **volumes}.items():
            found = Path(source)
            if not found.is_absolute():
                found = self._volume(source, one.user)
            elif not found.exists():
                raise NotFound(f"{source} is no file or folder of this machine", field="volume")
            mounts[path] = Mount(found, read_only)
        if service.image is not None:
            for path in service.image.volumes:
                # As an engine does: a volume without a name, which goes with the container.
                if path not in mounts:
                    mounts[path] = Mount(self._volume(f"{name}{path.replace('/', '-')}", one.user))
            mounts |= {
                path: Mount(found, True)
                for path, found in self._images.items()
                if path in one.environ.values()
            }
        return replace(one, name=name, mounts=mounts, environ={**one.environ, **self._added})

    def _volume(self, name: str, user: str) -> Path:
        return owned_folder(self._volumes / name, user)

    def _write_hosts(self) -> None:
        write_hosts(
            self._folders.hosts,
            [(one.address, name) for name, group in self._running.items() for one in group],
        )


@contextlib.asynccontextmanager
async def compose_fleet(
    file: Path,
    folder: Path,
    images: Mapping[str, Path],
    environ: Mapping[str, str] | None = None,
    added: Mapping[str, str] | None = None,
) -> AsyncIterator[ComposeFleet]:
    """Makes a fleet for the duration of the block, and stops what runs at its end."""
    fleet = ComposeFleet(file, folder, images, environ, added)
    try:
        yield fleet
    finally:
        await fleet.down()
