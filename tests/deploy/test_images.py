"""Stages of the Dockerfile keep what is agreed on images, and `make image` finds its tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.images import base_image
from deploy.images.engine import Build, Engine, NoEngineError, choose_engine
from deploy.images.targets import CPU_TARGETS, GPU_TARGETS, choose_targets, image_name
from tests.project.dockerfile import stage_text

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
TARGETS = (*CPU_TARGETS, *GPU_TARGETS)
BATCH = ("index_builder", "index_builder-gpu", "cli")


def test_every_stage_that_starts_something_is_a_target() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M)
    assert set(TARGETS) <= set(stages)
    started = {stage for stage in stages if "\nENTRYPOINT " in stage_text(DOCKERFILE, stage)}
    assert started - {"retrieval-service", "index_builder-service"} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_has_its_name_a_user_and_a_licence(target: str) -> None:
    text = stage_text(DOCKERFILE, target)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', text))
    assert labels["title"] == image_name(target).partition(":")[0]
    assert labels["licenses"] == "Apache-2.0" and labels["description"]
    assert re.findall(r"^USER (\S+)$", text, re.M)[-1] == "10001:10001"


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in BATCH])
def test_a_service_is_asked_for_its_health_at_its_port(target: str) -> None:
    text = stage_text(DOCKERFILE, target)
    (checked,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text, re.M)
    *command, address = json.loads(checked)
    module = "gateway.health" if target == "gateway" else "nearline.health"
    assert command == ["python", "-P", "-m", module]
    (service,) = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.M)[0])[3:]
    port = re.findall(rf"NEARLINE_{service.upper()}_PORT=(\d+)", text)
    assert address == f"127.0.0.1:{port[0]}"
    exposed = re.findall(r"^EXPOSE (.*)$", text, re.M)
    assert port[0] in exposed[0].split()


@pytest.mark.parametrize("target", TARGETS)
def test_no_volume_hides_what_an_image_brings(target: str) -> None:
    text = stage_text(DOCKERFILE, target)
    volumes = [path for line in re.findall(r"^VOLUME (.*)$", text, re.M) for path in line.split()]
    assert "/cache" in volumes or target in ("generation", "gateway")
    for path in re.findall(r"--cache-dir (\S+)|PREPARED_DIR=(\S+)", text):
        brought = Path(path[0] or path[1])
        assert not any(brought.is_relative_to(volume) for volume in volumes)


def test_targets_come_in_one_order_and_an_unknown_one_is_named() -> None:
    assert choose_targets([]) == list(CPU_TARGETS)
    assert choose_targets(["cli", "gateway"]) == ["gateway", "cli"]
    with pytest.raises(ValueError, match=r"no target gatevay; TARGETS chooses among gateway cli"):
        choose_targets(["gatevay"])
    assert image_name("index_builder", "1.0") == "nearline-index-builder:1.0"


def write_program(folder: Path, name: str, lines: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{lines}\n", "utf-8")
    program.chmod(0o755)


def test_without_any_engine_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngineError, match="apt install buildah netavark debootstrap"):
        choose_engine()
    # One that is installed and does not run counts as none.
    write_program(tmp_path, "docker", "echo no daemon >&2; exit 1")
    with pytest.raises(NoEngineError, match="start Docker or Podman"):
        choose_engine()


def test_a_container_of_docker_is_read_only_and_has_its_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path, "docker", f'echo "$@" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine = choose_engine()
    engine.build(tmp_path, Build("cli", "nearline-cli:1", "base@sha256:1", 7, {"a": "b"}, {}))
    asked = (tmp_path / "asked").read_text("utf-8")
    assert "--build-arg BASE_IMAGE=base@sha256:1 --build-arg SOURCE_DATE_EPOCH=7" in asked
    line = engine.command_line("image", ["python", "-c", "1"], {"/store": tmp_path})
    assert line[:2] == ["docker", "run"] and "--read-only" in line and f"{tmp_path}:/store" in line
    assert line[-5:] == ["--entrypoint", "python", "image", "-c", "1"]


def test_a_container_of_buildah_has_its_volumes_and_a_folder_for_files_that_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path, "buildah", f'echo "$@" >> {tmp_path}/asked; echo working-1')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("STORAGE_DRIVER", "BUILDAH_ISOLATION"):
        monkeypatch.setenv(name, "")
    engine = Engine("buildah")
    lines = [engine.command_line("image", ["id"], {"/store": tmp_path}) for _ in range(2)]
    mounts = ["--volume", f"{tmp_path}:/store", "--mount", "type=tmpfs,destination=/tmp"]
    assert lines == [["buildah", "run", *mounts, "working-1", "--", "id"]] * 2
    engine.close()
    opened, removed = (tmp_path / "asked").read_text("utf-8").splitlines()
    assert opened.startswith("from --pull=never") and removed == "rm working-1"


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--optional"], 0)])
def test_a_machine_that_builds_no_images_says_why(
    words: list[str], code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "deploy.images", "--cyclonedx", sys.executable, *words]
    environ = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == code
    assert "nothing here builds images; start Docker" in done.stderr
    assert done.stderr.startswith("skipped images: ") == bool(words)


def test_pip_of_a_build_asks_the_index_that_pip_asks_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CERT", "/some/ca.crt")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels/of/this/machine")
    mounts = base_image.pip_mounts(tmp_path)
    written = mounts["/etc/pip.conf"].read_text("utf-8")
    assert "index-url = http://127.0.0.1:9/simple\n" in written and "find-links" not in written
    (inside,) = (path for path, outside in mounts.items() if outside == Path("/some/ca.crt"))
    assert f"cert = {inside}\n" in written


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing"], "there is no target nothing"),
        (["--cyclonedx", "/nothing"], "there is no program /nothing"),
    ],
)
def test_the_command_refuses_what_is_unknown_before_it_builds(words: list[str], why: str) -> None:
    command = [sys.executable, "-m", "deploy.images", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and why in done.stderr


@pytest.mark.parametrize("target", ["retrieval", "retrieval-milvus", "index_builder", "cli"])
def test_an_image_has_one_faiss(target: str) -> None:
    for name, wheel in ((target, "cpu"), (f"{target}-gpu", "gpu")):
        if name in TARGETS:
            (extras,) = re.findall(r"/wheels/install\.sh (\S+)", stage_text(DOCKERFILE, name))
            assert {"cpu", "gpu"} & set(extras.split(",")) == {wheel}
