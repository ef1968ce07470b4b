"""The wheel of the images, made from what `.dockerignore` lets through."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def _context(folder: Path) -> Path:
    """Copies what Docker would send: `*` leaves out all, `!name` lets in, `**/name` leaves out."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and all(re.fullmatch(r"!\w[\w.]*|\*\*/\w+", one) for one in rules[1:])
    left_out = [one.removeprefix("**/") for one in rules if one.startswith("**/")]
    for name in (one[1:] for one in rules if one.startswith("!")):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
        else:
            shutil.copyfile(source, target)
    return folder


def _modules(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.suffix in (".py", ".pyi", ".typed")
    }


def test_the_builder_gets_every_package_and_what_the_build_reads(tmp_path: Path) -> None:
    context = _context(tmp_path)
    assert _modules(context) == _modules(ROOT)
    for package in PACKAGES:
        assert (context / package / "__init__.py").is_file()
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    started = re.findall(r'ENTRYPOINT \["python", "-P", "-m", "(\w+)"\]', dockerfile)
    assert started and set(started) <= set(PACKAGES)
    project = PROJECT["project"]
    for name in (*project["license-files"], project["readme"], "constraints.txt", "pyproject.toml"):
        assert (context / name).is_file()


@pytest.mark.service
def test_the_wheel_has_every_module(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    context = tmp_path / "context"
    context.mkdir()
    _context(context)
    words = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *words, str(context)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("nearline-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) >= _modules(ROOT)
