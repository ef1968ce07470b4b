"""The image that all targets start from: the Dockerfile's, or one of Debian's packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.images.engine import REMEDY, Engine, EngineError, NoEngineError, run

_SUITE = "trixie"
_MIRROR = "http://deb.debian.org/debian"
_LOCAL = "localhost/nearline-base:trixie"
# What python:3.13-slim leaves out, too.
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache")
# pip's settings that say where packages come from; others are matters of this machine.
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
)
_CA_INSIDE = "/run/build-ca.crt"


def prepare_base(engine: Engine, dockerfile: Path) -> str:
    """Returns the base of a build, with its digest: the Dockerfile's. Where that cannot be fetched,
    debootstrap makes one of Debian's packages for Buildah.

    Raises: NoEngineError: neither can be had.
    """
    (named,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile.read_text("utf-8"), re.M)
    try:
        return engine.pull(named if "/" in named else f"docker.io/library/{named}")
    except EngineError as error:
        unreachable = str(error).splitlines()[-1]
    if not engine.is_buildah or shutil.which("debootstrap") is None:
        raise NoEngineError(f"{named} cannot be fetched ({unreachable}); {REMEDY}")
    try:
        engine.digest(_LOCAL)
    except EngineError:
        _bootstrap()
    return _LOCAL


def _bootstrap() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = "--include=python3,python3-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", packages, _SUITE, str(root), _MIRROR]
        run(command, "debootstrap")
        for name in _UNUSED:
            shutil.rmtree(root / name)
            (root / name).mkdir()
        # `python` and `pip` on the path, as in Python's image; Debian's own pip refuses.
        run(["chroot", str(root), "python3", "-m", "venv", "/usr/local"], "making /usr/local")
        made = run(["buildah", "from", "scratch"], "buildah from").decode().strip()
        run(["buildah", "copy", "--quiet", made, str(root), "/"], "copying the base")
    commit = ["buildah", "commit", "--rm", "--quiet", "--format", "docker", made, _LOCAL]
    run(commit, f"making {_LOCAL}")


def pip_mounts(folder: Path) -> dict[str, Path]:
    """Returns what pip of a build needs to reach the same index as pip here: files by their path
    during the build. They do not become part of an image.

    Args:
        folder: Where to write them.
    """
    lines = ["[global]"]
    mounts: dict[str, Path] = {}
    for key, value in _pip_settings().items():
        if key == "cert":
            mounts[_CA_INSIDE] = Path(value)
            lines.append(f"cert = {_CA_INSIDE}")
        elif key in _PIP_SETTINGS:
            lines.append(f"{key} = {value}")
    if len(lines) > 1:
        file = folder / "pip.conf"
        file.write_text("\n".join(lines) + "\n", "utf-8")
        mounts["/etc/pip.conf"] = file
    return mounts


def _pip_settings() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        # Later lines win: files first, variables last, such as `:env:.cert`.
        settings[name.rpartition(".")[2]] = value.strip("'\"")
    return settings
