"""Programs that tests of deployment run, wherever they are installed."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# `make deploy-tools` unpacks Debian's packages here, without root.
TOOLS = ROOT / ".cache" / "deploy-tools"


@functools.cache
def find_tool(name: str) -> str | None:
    """Returns the path of a program: on PATH, in TOOLS, or beside the interpreter."""
    places = (None, str(TOOLS / "usr" / "bin"), str(Path(sys.executable).parent))
    return next((found for path in places if (found := shutil.which(name, path=path))), None)


def require_tool(name: str) -> str:
    """Returns the path of a program, or skips the test."""
    found = find_tool(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make deploy-tools")
    return found
