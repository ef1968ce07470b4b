"""Docker and Podman, whose commands are the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from deploy.images.engine import BUILD_TIMEOUT_S, Build, Container, EngineError, run


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
