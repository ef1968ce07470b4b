"""Docker, Podman and Buildah, and the choice of the one that builds images on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.images.engine import BUILD_TIMEOUT_S, REMEDY, Build, Container, Engine, EngineError, run

# Copies of whole file systems, and processes in a chroot: both work inside of a container.
_ENVIRON = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
# Its own limits are above those of some machines, where it would not start.
_LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=90000:90000")
# Mounts what a container engine mounts, makes the rest read-only, and becomes the process.
# Arguments: root, working directory, user, and pairs of folder and path inside up to `--`.
_CONTAINER = """
root=$1 work=$2 user=$3; shift 3
mount --bind "$root" "$root"
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done
shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,ro,bind "$root"
exec chroot --userspec="$user" --groups= "$root" env -i --chdir="$work" "$@"
"""


class Buildah:
    """Buildah, for machines without a container engine: it needs root, but no daemon.

    Its containers are root file systems, which `unshare` and `chroot` run. Each image is mounted
    once, when its first container runs.
    """

    name = "buildah"

    def __init__(self) -> None:
        os.environ.update(_ENVIRON)
        self._mounted: dict[str, tuple[str, Path]] = {}

    def pull(self, image: str) -> str:
        run(["buildah", "pull", "--quiet", image], f"pulling {image}")
        return f"{image.partition('@')[0]}@{self._inspect(image)['FromImageDigest']}"

    def import_base(self, folder: Path, image: str) -> None:
        made = run(["buildah", "from", "scratch"], "buildah from").decode().strip()
        try:
            run(["buildah", "copy", "--quiet", made, str(folder), "/"], "copying the base")
            run(
                ["buildah", "commit", "--quiet", "--format", "docker", made, image],
                f"making {image}",
            )
        finally:
            run(["buildah", "rm", made], "buildah rm")

    def build(self, context: Path, build: Build) -> None:
        # Without --layers nothing is kept but the image: a layer over the base.
        command = ["buildah", "build", *_LIMITS, "--network", "host", "--format", "docker"]
        command += ["--target", build.target, "--tag", build.image]
        command += ["--timestamp", str(build.epoch)]
        command += ["--build-arg", f"BASE_IMAGE={build.base}"]
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={build.epoch}"]
        for key, value in build.labels.items():
            command += ["--label", f"{key}={value}"]
        for inside, path in build.mounts.items():
            command += ["--volume", f"{path}:{inside}:ro"]
        replaced = self._find(build.image)
        run([*command, str(context)], f"building {build.image}", BUILD_TIMEOUT_S)
        # Each image is a whole file system on this disk.
        if replaced and replaced != self._find(build.image):
            run(["buildah", "rmi", replaced], f"removing the old {build.image}")

    def digest(self, image: str) -> str:
        return f"sha256:{self._inspect(image)['FromImageID']}"

    def entrypoint(self, image: str) -> list[str]:
        return [str(word) for word in self._config(image)["Entrypoint"]]

    def command_line(self, container: Container) -> list[str]:
        config = self._config(container.image)
        pairs = [str(word) for inside, path in container.volumes.items() for word in (path, inside)]
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-euc", _CONTAINER, "sh"),
            *(str(self._mount(container.image)), config["WorkingDir"] or "/", config["User"]),
            *(*pairs, "--", *(config["Env"] or ()), *container.command),
        ]

    def remove(self, image: str) -> None:
        if self._find(image):
            run(["buildah", "rmi", image], f"removing {image}")

    def close(self) -> None:
        for container, _ in self._mounted.values():
            run(["buildah", "rm", container], "buildah rm")
        self._mounted.clear()

    def _find(self, image: str) -> str:
        """Returns the id of an image; empty if there is none."""
        words = ("--quiet", "--no-trunc", "--filter", f"reference=localhost/{image}")
        return run(["buildah", "images", *words], "buildah images").decode().strip()

    def _mount(self, image: str) -> Path:
        if image not in self._mounted:
            made = run(["buildah", "from", "--pull=never", image], f"opening {image}")
            container = made.decode().strip()
            root = run(["buildah", "mount", container], f"mounting {image}").decode().strip()
            self._mounted[image] = (container, Path(root))
        return self._mounted[image][1]

    def _config(self, image: str) -> dict[str, Any]:
        config: dict[str, Any] = self._inspect(image)["Docker"]["config"]
        return config

    def _inspect(self, image: str) -> dict[str, Any]:
        output = run(["buildah", "inspect", "--type", "image", image], f"reading {image}")
        found: dict[str, Any] = json.loads(output)
        return found


class ContainerEngine:
    """Docker or Podman.

    Args:
        name: Its program.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def pull(self, image: str) -> str:
        run([self.name, "pull", "--quiet", image], f"pulling {image}", BUILD_TIMEOUT_S)
        digests = json.loads(self._inspect(image, "{{json .RepoDigests}}"))
        return str(digests[0]) if digests else image

    def import_base(self, folder: Path, image: str) -> None:
        with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
            done = subprocess.run([self.name, "import", "-", image], stdin=tar.stdout)
        if done.returncode or tar.returncode:
            raise EngineError(f"{self.name} import of {folder} failed")

    def build(self, context: Path, build: Build) -> None:
        command = [self.name, "build", "--target", build.target, "--tag", build.image]
        command += ["--build-arg", f"BASE_IMAGE={build.base}"]
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={build.epoch}"]
        for key, value in build.labels.items():
            command += ["--label", f"{key}={value}"]
        if self.name == "podman":
            command += ["--format", "docker", "--timestamp", str(build.epoch)]
            for inside, path in build.mounts.items():
                command += ["--volume", f"{path}:{inside}:ro"]
        # Docker's builder mounts no files: there, the base image brings pip's settings.
        run([*command, str(context)], f"building {build.image}", BUILD_TIMEOUT_S)

    def digest(self, image: str) -> str:
        return self._inspect(image, "{{.Id}}")

    def entrypoint(self, image: str) -> list[str]:
        return [
            str(word) for word in json.loads(self._inspect(image, "{{json .Config.Entrypoint}}"))
        ]

    def command_line(self, container: Container) -> list[str]:
        command = [self.name, "run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp"]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        for inside, path in container.volumes.items():
            command += ["--volume", f"{path}:{inside}"]
        first, *rest = container.command
        return [*command, "--entrypoint", first, container.image, *rest]

    def remove(self, image: str) -> None:
        run([self.name, "rmi", "--force", image], f"removing {image}")

    def close(self) -> None:
        pass  # Containers are removed when they end.

    def _inspect(self, image: str, template: str) -> str:
        output = run(
            [self.name, "image", "inspect", "--format", template, image], f"reading {image}"
        )
        return output.decode().strip()


_PROBE_TIMEOUT_S = 20.0


def choose_engine() -> Engine:
    """Returns the first of Docker, Podman and Buildah that runs.

    Raises: EngineError: none does.
    """
    for program in ("docker", "podman"):
        if shutil.which(program) and _runs([program, "info"]):
            return ContainerEngine(program)
    if shutil.which("buildah"):
        return Buildah()
    raise EngineError(f"nothing here builds images; {REMEDY}")


def _runs(command: Sequence[str]) -> bool:
    try:
        run(command, command[0], _PROBE_TIMEOUT_S)
    except EngineError:
        return False
    return True
