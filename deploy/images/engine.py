"""Docker, Podman or Buildah, which build images and run containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Processes of an image: Nearline's, and Debian's tools. Seconds.
COMMAND_TIMEOUT_S = 600.0
BUILD_TIMEOUT_S = 3600.0
_PROBE_TIMEOUT_S = 20.0
REMEDY = "start Docker or Podman, or run: apt install buildah netavark debootstrap"
# Of Buildah. Copies of whole file systems, and processes in a chroot: both work in a container.
_ENVIRON = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
# Its own limits are above those of some machines, where it would not start.
_LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=90000:90000")


class EngineError(Exception):
    """An image was not built, or a container not run; the text has the remedy."""


class NoEngineError(EngineError):
    """This machine has nothing that builds images, or no base to build them from."""


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


class Engine:
    """Builds images and runs containers, which have the network of this machine.

    Args:
        name: The program: docker, podman or buildah.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_buildah = name == "buildah"
        # Buildah's working containers by image.
        self._opened: dict[str, str] = {}
        if self.is_buildah:
            os.environ.update(_ENVIRON)

    def pull(self, image: str) -> str:
        """Fetches an image; returns its name with its digest. Raises: EngineError."""
        run([self.name, "pull", "--quiet", image], f"pulling {image}", BUILD_TIMEOUT_S)
        if self.is_buildah:
            return f"{image.partition('@')[0]}@{self._inspect(image, '{{.FromImageDigest}}')}"
        return self._inspect(image, "{{index .RepoDigests 0}}")

    def build(self, context: Path, build: Build) -> None:
        """Builds an image. Raises: EngineError."""
        command = [self.name, "build", "--target", build.target, "--tag", build.image]
        command += ["--build-arg", f"BASE_IMAGE={build.base}"]
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={build.epoch}"]
        for key, value in build.labels.items():
            command += ["--label", f"{key}={value}"]
        # Docker's builder mounts no files: there, the base image brings pip's settings.
        if self.name != "docker":
            command += ["--format", "docker", "--timestamp", str(build.epoch)]
            for inside, path in build.mounts.items():
                command += ["--volume", f"{path}:{inside}:ro"]
        if self.is_buildah:
            command += [*_LIMITS, "--network", "host"]
        run([*command, str(context)], f"building {build.image}", BUILD_TIMEOUT_S)

    def digest(self, image: str) -> str:
        """Returns the digest of an image's configuration, which covers its layers."""
        if self.is_buildah:
            return f"sha256:{self._inspect(image, '{{.FromImageID}}')}"
        return self._inspect(image, "{{.Id}}")

    def command_line(
        self, image: str, command: Sequence[str], volumes: Mapping[str, Path]
    ) -> list[str]:
        """Returns the command line that runs a container in the foreground.

        Args:
            image: Name of the image.
            command: What runs in place of the image's entry point.
            volumes: Folders of this machine by their path inside.
        """
        mounts = [
            word for inside, path in volumes.items() for word in ("--volume", f"{path}:{inside}")
        ]
        if self.is_buildah:
            # As the image's user, without capabilities; Buildah has no read-only file systems.
            mounts += ["--mount", "type=tmpfs,destination=/tmp"]
            return ["buildah", "run", *mounts, self._container(image), "--", *command]
        words = ["run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp"]
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", *mounts]
        first, *rest = command
        return [self.name, *words, "--entrypoint", first, image, *rest]

    def close(self) -> None:
        """Removes what running containers has left behind; the images stay."""
        for container in self._opened.values():
            run(["buildah", "rm", container], "buildah rm")
        self._opened.clear()

    def _container(self, image: str) -> str:
        if image not in self._opened:
            made = run(["buildah", "from", "--pull=never", *_LIMITS, image], f"opening {image}")
            self._opened[image] = made.decode().strip()
        return self._opened[image]

    def _inspect(self, image: str, template: str) -> str:
        words = ["inspect", "--type", "image"] if self.is_buildah else ["image", "inspect"]
        output = run([self.name, *words, "--format", template, image], f"reading {image}")
        return output.decode().strip()


def choose_engine() -> Engine:
    """Returns the first of Docker, Podman and Buildah that runs.

    Raises: NoEngineError: none does.
    """
    for program in ("docker", "podman", "buildah"):
        probe = "info" if program != "buildah" else "--version"
        if shutil.which(program) and _runs([program, probe]):
            return Engine(program)
    raise NoEngineError(f"nothing here builds images; {REMEDY}")


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


def _runs(command: Sequence[str]) -> bool:
    try:
        run(command, command[0], _PROBE_TIMEOUT_S)
    except EngineError:
        return False
    return True
