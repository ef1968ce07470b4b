"""Reads compose.yaml: the parts of the Compose specification that it uses, and no others."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fleet.containers import Container, ExecCheck, Probe
from benchmarks.fleet.dockerfile import Image, read_stage

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_KNOWN = {
    *("restart", "stop_grace_period", "stop_signal", "read_only", "tmpfs", "cap_drop"),
    *("security_opt", "image", "build", "entrypoint", "volumes", "depends_on", "healthcheck"),
    *("command", "ports", "profiles", "environment", "user", "mem_limit", "logging", "init"),
}


@dataclass(frozen=True, slots=True)
class ComposeService:
    """A service of the file.

    container: Named as the service. entrypoint: The words before the command. needs: Services that
    must be in a state first, one of "service_started", "service_healthy" and
    "service_completed_successfully". volumes: Named volumes, or paths of the host, by path in the
    container, with whether they are read-only.
    image: As this repository's Dockerfile makes it; None for other images.
    """

    container: Container
    entrypoint: tuple[str, ...]
    needs: Mapping[str, str]
    volumes: Mapping[str, tuple[str, bool]]
    profiles: tuple[str, ...]
    image: Image | None


def read_compose(file: Path, environ: Mapping[str, str] | None = None) -> dict[str, ComposeService]:
    """Returns the services of a Compose file, by name.

    environ: Variables that the file refers to. Optional; None means those of this process.
    Raises: ValueError: the file has a key that this reader does not know.
    """
    content = read_document(file, environ)
    dockerfile = (file.parent / "Dockerfile").read_text("utf-8")
    return {
        name: _service(name, service, dockerfile, file.parent)
        for name, service in content["services"].items()
    }


def read_document(file: Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the content of a Compose file, with the values of variables.

    environ: As `read_compose`.
    """
    chosen = os.environ if environ is None else environ
    text = _VARIABLE.sub(
        lambda match: chosen.get(match[1]) or match[2] or "", file.read_text("utf-8")
    )
    content: dict[str, Any] = yaml.safe_load(text)
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
    container = Container(
        name=name,
        words=(*entrypoint, *command),
        environ={**image.environ, **_environment(service.get("environment") or {})},
        tmpfs=tuple(_as_list(service.get("tmpfs"))),
        user=str(service.get("user") or image.user),
        ready=_probe(service.get("healthcheck")),
        stop_signal=signal.Signals[service.get("stop_signal", "SIGTERM")],
        grace_s=seconds(service.get("stop_grace_period", "10s")),
        restarts=service.get("restart", "no") != "no",
        memory_bytes=_bytes(service.get("mem_limit", 0)),
    )
    needs = service.get("depends_on") or {}
    if isinstance(needs, list):
        needs = {one: {"condition": "service_started"} for one in needs}
    return ComposeService(
        container=container,
        entrypoint=tuple(entrypoint),
        needs={one: how["condition"] for one, how in needs.items()},
        volumes=dict(read_volume(text, folder) for text in service.get("volumes") or ()),
        profiles=tuple(service.get("profiles") or ()),
        image=image if build else None,
    )


def read_volume(text: str, folder: Path) -> tuple[str, tuple[str, bool]]:
    """Reads "SOURCE:PATH[:ro]"; returns the path, and the source with whether it is read-only."""
    source, path, *mode = text.split(":")
    if source.startswith("."):
        source = str((folder / source).resolve())
    return path, (source, "ro" in mode)


def seconds(text: str) -> float:
    """Returns the seconds of a duration such as 1m30s."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(str(text)))


def _probe(healthcheck: Mapping[str, Any] | None) -> Probe | None:
    if healthcheck is None:
        return None
    kind, *words = healthcheck["test"]
    if kind == "CMD-SHELL":
        words = ["sh", "-c", *words]
    interval_s = seconds(healthcheck.get("interval", "30s"))
    return Probe(
        check=ExecCheck(tuple(words)),
        interval_s=interval_s,
        timeout_s=seconds(healthcheck.get("timeout", "30s")),
        failures=int(healthcheck.get("retries", 3)),
        start_period_s=seconds(healthcheck.get("start_period", "0s")),
        # Docker's default, and only during the start period.
        start_interval_s=seconds(healthcheck.get("start_interval", "5s")),
    )


def _environment(given: Mapping[str, Any] | list[str]) -> dict[str, str]:
    if isinstance(given, list):
        return dict(line.split("=", 1) for line in given)
    return {name: str(value) for name, value in given.items()}


def _words(given: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(shlex.split(given))
    return tuple(str(word) for word in given or ())


def _as_list(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _bytes(given: str | int) -> int:
    text = str(given).lower().removesuffix("b")
    return int(float(text[:-1]) * _BYTES[text[-1]]) if text[-1] in _BYTES else int(text)
