"""Compose without an engine: reads compose.yaml, and runs its services as processes.

It knows the parts of the Compose specification that the file uses, and no others.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shlex
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fleet.container_process import Executed, RunningContainer
from benchmarks.fleet.containers import Check, Container, Mount, Probe
from benchmarks.fleet.dockerfile import Image, read_stage
from benchmarks.fleet.fleet import START_S, Fleet
from nearline.errors import NotFound

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KNOWN = {
    *("restart", "stop_grace_period", "stop_signal", "read_only", "tmpfs", "cap_drop"),
    *("security_opt", "image", "build", "entrypoint", "volumes", "depends_on", "healthcheck"),
    *("command", "ports", "profiles", "environment", "user", "mem_limit", "logging", "init"),
}


@dataclass(frozen=True, slots=True)
class ComposeService:
    """A service of the file.

    container: Named as the service. entrypoint: The words before the command. needs: Services that
    must be ready first. volumes: Named volumes, or paths of the host, by path in the container,
    with whether they are read-only. image: As this repository's Dockerfile makes it; None for
    other images.
    """

    container: Container
    entrypoint: tuple[str, ...]
    needs: tuple[str, ...]
    volumes: Mapping[str, tuple[str, bool]]
    profiles: tuple[str, ...]
    image: Image | None


def read_compose(file: Path, environ: Mapping[str, str]) -> dict[str, ComposeService]:
    """Returns the services of a Compose file, by name; the Dockerfile is next to it.

    environ: Variables that the file refers to.
    Raises: ValueError: the file has a key that this reader does not know.
    """
    dockerfile = (file.parent / "Dockerfile").read_text("utf-8")
    services = read_document(file, environ)["services"]
    return {name: _service(name, one, dockerfile, file.parent) for name, one in services.items()}


def read_document(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of a Compose file, with the values of variables."""
    text = file.read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(
        _VARIABLE.sub(lambda match: environ.get(match[1]) or match[2] or "", text)
    )
    return content


def _service(
    name: str, service: Mapping[str, Any], dockerfile: str, folder: Path
) -> ComposeService:
    if unknown := set(service) - _KNOWN:
        raise ValueError(f"service {name}: {sorted(unknown)} is not known to the runner")
    build = service.get("build")
    image = read_stage(dockerfile, build["target"]) if build else Image()
    entrypoint = _words(service.get("entrypoint")) or image.entrypoint
    # A service with an entrypoint of its own does not have the image's command.
    command = _words(service.get("command")) or (() if service.get("entrypoint") else image.command)
    own = {key: str(value) for key, value in (service.get("environment") or {}).items()}
    container = Container(
        name=name,
        words=(*entrypoint, *command),
        environ={**image.environ, **own},
        tmpfs=tuple(service.get("tmpfs", ())),
        user=str(service.get("user") or image.user),
        ready=_probe(service["healthcheck"]) if "healthcheck" in service else None,
        stop_signal=signal.Signals[service.get("stop_signal", "SIGTERM")],
        grace_s=seconds(service.get("stop_grace_period", "10s")),
        restarts=service.get("restart", "no") != "no",
    )
    return ComposeService(
        container=container,
        entrypoint=tuple(entrypoint),
        needs=tuple(service.get("depends_on", ())),
        volumes=dict(_volume(text, folder) for text in service.get("volumes", ())),
        profiles=tuple(service.get("profiles", ())),
        image=image if build else None,
    )


def _volume(text: str, folder: Path) -> tuple[str, tuple[str, bool]]:
    """Reads "SOURCE:PATH[:ro]"; returns the path, and the source with whether it is read-only."""
    source, path, *mode = text.split(":")
    if source.startswith("."):
        source = str((folder / source).resolve())
    return path, (source, "ro" in mode)


def seconds(text: str) -> float:
    """Returns the seconds of a duration such as 1m30s."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def _probe(given: Mapping[str, Any]) -> Probe:
    kind, *words = given["test"]
    assert kind == "CMD", given
    # The others are Docker's defaults.
    return Probe(
        check=Check(tuple(words)),
        interval_s=seconds(given.get("interval", "30s")),
        timeout_s=seconds(given.get("timeout", "30s")),
        failures=int(given.get("retries", 3)),
        start_period_s=seconds(given.get("start_period", "0s")),
        start_interval_s=seconds(given.get("start_interval", "5s")),
    )


def _words(given: str | list[str] | None) -> tuple[str, ...]:
    return tuple(shlex.split(given)) if isinstance(given, str) else tuple(given or ())


class ComposeFleet(Fleet):
    """The services of a Compose file.

    Args:
        file: The file; the Dockerfile is next to it.
        folder: As for `Fleet`.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        super().__init__(folder)
        self.services = read_compose(file, {})
        self._place = file.parent
        self._running: dict[str, list[RunningContainer]] = {}
        self._jobs = itertools.count(1)
        self._write_names()

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
        self, services: Iterable[str] = (), scale: Mapping[str, int] | None = None
    ) -> None:
        """Starts services and what they need, and waits until all are healthy.

        services: Names; empty starts all without a profile.
        scale: Containers by service; one each otherwise.
        """
        starting: dict[str, asyncio.Task[None]] = {}

        def begin(name: str) -> asyncio.Task[None]:
            if name not in starting:
                wanted = (scale or {}).get(name, max(1, len(self.containers(name))))
                needed = [begin(one) for one in self.services[name].needs]
                starting[name] = group.create_task(self._start(name, wanted, needed))
            return starting[name]

        async with asyncio.TaskGroup() as group:
            for name in list(services) or self.services:
                if services or not self.services[name].profiles:
                    begin(name)

    async def run(
        self, service: str, words: Sequence[str], volumes: Sequence[str] = ()
    ) -> Executed:
        """Runs a command in a new container of a service, after what it needs, until it ends."""
        one = self.services[service]
        if one.needs:
            await self.up(one.needs)
        mounts = dict(_volume(text, self._place) for text in volumes)
        container = replace(
            self._container(one, f"{service}-run-{next(self._jobs)}", mounts),
            words=(*one.entrypoint, *words) if words else one.container.words,
            ready=None,
            restarts=False,
        )
        job = self.prepare(container)
        job.start()
        try:
            code = await job.wait()
        except asyncio.CancelledError:
            await job.stop()
            raise
        return Executed(code, job.log.read_text("utf-8", "replace"))

    async def replace(self, service: str) -> None:
        """Replaces the containers of a service, as `up --force-recreate --no-deps` does.

        Each is stopped first, and the next one has another address.
        """
        for old in self.containers(service):
            await self._stop(service, old)
            await self._launch(service, old.name).wait_ready(START_S)

    async def close(self) -> None:
        """Stops everything, as `down` does: first what others do not need."""
        while self._running:
            needed = {one for name in self._running for one in self.services[name].needs}
            pairs = [
                (name, one)
                for name in self._running
                if name not in needed
                for one in self.containers(name)
            ]
            await asyncio.gather(*(self._stop(name, one) for name, one in pairs))

    async def _start(self, name: str, wanted: int, needed: Sequence[asyncio.Task[None]]) -> None:
        for task in needed:
            await task
        for old in self.containers(name)[wanted:]:
            await self._stop(name, old)
        for number in range(len(self.containers(name)), wanted):
            self._launch(name, f"{name}-{number + 1}")
        for container in self.containers(name):
            await container.wait_ready(START_S)

    def _launch(self, service: str, name: str) -> RunningContainer:
        running = self.prepare(self._container(self.services[service], name, {}))
        self._running.setdefault(service, []).append(running)
        self._write_names()
        running.start()
        return running

    async def _stop(self, service: str, container: RunningContainer) -> None:
        self.stops.append(await container.stop())
        self._running[service].remove(container)
        if not self._running[service]:
            del self._running[service]
        self._write_names()

    def _container(
        self, service: ComposeService, name: str, volumes: Mapping[str, tuple[str, bool]]
    ) -> Container:
        one = service.container
        mounts = {}
        for path, (source, read_only) in {**service.volumes, **volumes}.items():
            found = Path(source)
            if not found.is_absolute():
                found = self.volume(source, one.user)
            elif not found.exists():
                raise NotFound(f"{source} is no file or folder of this machine", field="volume")
            mounts[path] = Mount(found, read_only)
        for path in service.image.volumes if service.image else ():
            # As an engine does: a volume without a name, which goes with the container.
            if path not in mounts:
                mounts[path] = Mount(self.volume(f"{name}{path.replace('/', '-')}", one.user))
        return replace(one, name=name, mounts=mounts)

    def _write_names(self) -> None:
        self.write_hosts(
            (one.address, name) for name, group in self._running.items() for one in group
        )
