"""The interface to Docker, Podman or Buildah, which build images and run containers."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

# Processes of an image: Nearline's, and Debian's tools. Seconds.
COMMAND_TIMEOUT_S = 600.0
BUILD_TIMEOUT_S = 3600.0
REMEDY = "start Docker or Podman, or run: apt install buildah netavark debootstrap"


class EngineError(Exception):
    """An image was not built, or a container not run; the text has the remedy."""


class Build(NamedTuple):
    """One call of the builder.

    target: Stage of the Dockerfile. image: Name of the new image. base: Image to start from.
    epoch: Time of every new file, in seconds since 1970. labels: Labels of the image. mounts: Files
    of this machine by their path during the build, such as a pip.conf.
    """

    target: str
    image: str
    base: str
    epoch: int
    labels: Mapping[str, str]
    mounts: Mapping[str, Path]


class Container(NamedTuple):
    """One container. It has the network of this machine.

    image: Name of the image. command: What runs in place of the image's entry point. volumes:
    Folders of this machine by their path inside.
    """

    image: str
    command: Sequence[str]
    volumes: Mapping[str, Path] = {}


class Engine(Protocol):
    """Builds images and runs containers as they run in production: non-root and read-only."""

    name: str

    def pull(self, image: str) -> str:
        """Fetches an image; returns its name with its digest. Raises: EngineError."""

    def import_base(self, folder: Path, image: str) -> None:
        """Makes an image of a root file system. Raises: EngineError."""

    def build(self, context: Path, build: Build) -> None:
        """Builds an image. Raises: EngineError."""

    def digest(self, image: str) -> str:
        """Returns the digest of an image's configuration, which covers its layers."""

    def entrypoint(self, image: str) -> list[str]:
        """Returns the entry point of an image."""

    def command_line(self, container: Container) -> list[str]:
        """Returns the command line that runs a container in the foreground."""

    def remove(self, image: str) -> None:
        """Removes an image if it is there; none of its containers may run."""

    def close(self) -> None:
        """Removes what running containers has left behind; the images stay."""


def run(command: Sequence[str], what: str, timeout_s: float = COMMAND_TIMEOUT_S) -> bytes:
    """Runs a program to its end; returns its standard output.

    Raises: EngineError: it fails or takes too long; the text has its last lines.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{what} took more than {timeout_s:.0f} s") from error
    if done.returncode:
        last = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()[-15:]
        raise EngineError("\n".join((f"{what} failed with exit code {done.returncode}:", *last)))
    return done.stdout
