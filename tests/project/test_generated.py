"""Tests that committed files are those that their generators make now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import nearline
from nearline_cli import docs_generator

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "nearline"


def test_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "proto").rglob("*.proto"))
    mypy_grpc = "--mypy_grpc_out=only_async,generate_concrete_servicer_stubs"
    # The plugin of mypy-protobuf lies beside the interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto"),
            f"-I{sysconfig.get_path('purelib')}",
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")),
            f"{mypy_grpc}:{tmp_path}",
            *protos,
        ],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PATH": path},
    )
    made = _contents(tmp_path / "nearline")
    kept = _contents(STUBS)
    assert sorted(made) == sorted(kept)
    stale = sorted(name for name, data in made.items() if kept[name] != data)
    assert stale == [], "run `make proto`"


def _contents(folder: Path) -> dict[str, bytes]:
    """Returns the contents of generated files by their path."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*_pb2*.py*")
        if p.suffix != ".pyc"
    }


@pytest.mark.parametrize("name", ["settings.md", "cli.md", "metrics.md"])
def test_reference_pages_are_what_the_code_says(name: str) -> None:
    wanted = docs_generator.generate_pages()[name]
    assert (ROOT / "docs/reference" / name).read_text("utf-8") == wanted, "run `make docs`"


def _declared(file: str) -> tuple[list[str], dict[str, list[str]]]:
    """Returns what a distribution requires, and its extras."""
    config = tomllib.loads((ROOT / file).read_text("utf-8"))
    project = config["project"]
    hooks = config["tool"]["hatch"].get("metadata", {}).get("hooks", {}).get("custom", {})
    return (
        project.get("dependencies", []) + hooks.get("requires", []),
        project.get("optional-dependencies", {}),
    )


def test_generated_code_runs_on_the_lowest_runtime_that_is_declared() -> None:
    dependencies, _ = _declared("pyproject.toml")
    pairs = (line.partition(">=") for line in dependencies)
    floors = {name: version for name, _, version in pairs}
    text = "\n".join(p.read_text("utf-8") for p in sorted(STUBS.rglob("*_pb2*.py")))
    grpc = set(re.findall(r"^GRPC_GENERATED_VERSION = '([\d.]+)'", text, re.M))
    protobuf = set(re.findall(r"^# Protobuf Python Version: ([\d.]+)$", text, re.M))
    assert grpc == {floors["grpcio"]}
    assert protobuf == {floors["protobuf"]}


def test_every_pinned_version_lies_within_what_the_project_declares() -> None:
    pins = {
        line.partition("==")[0].lower().replace("_", "-")
        for file in ("constraints.txt", "constraints-integrations.txt")
        for line in (ROOT / file).read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    }
    declared: list[str] = []
    for file in ("pyproject.toml", "server/pyproject.toml"):
        dependencies, extras = _declared(file)
        declared += [*dependencies, *(line for key in extras for line in extras[key])]
    names = {re.split(r"[\[<>=]", line)[0].lower() for line in declared}
    # faiss-gpu takes the place of faiss-cpu, by choice of the user.
    assert {
        name
        for name in names - {"nearline", "nearline-server", "faiss-gpu", "torch"}
        if name not in pins
    } == set()


def test_the_changelog_ends_at_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", text, re.M)
    assert versions[0] == nearline.__version__
    assert text.index("## [Unreleased]") < text.index(f"## [{versions[0]}]")
