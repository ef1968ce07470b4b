"""Parts of tests of running fleets: documents, the image's model, and manifests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import sandbox
from tests.deploy.tools import require_tool
from tests.redis_server import INSTALLED

ROOT = Path(__file__).parents[2]
DOCUMENTS = 40
# The images lack torch, which the development environment has.
ADDED = {"NEARLINE_EMBEDDING_BACKEND": "openvino"}
needs_containers = pytest.mark.skipif(
    bool(sandbox.why_not()) or not INSTALLED,
    reason=sandbox.why_not() or "the bundled Redis is not installed",
)


@cache
def image_folders() -> dict[str, Path]:
    """Returns what images bring apart from packages: the model, converted as they are built."""
    folder = ROOT / ".cache" / "fleet"
    subprocess.run(
        [sys.executable, "-P", "-m", "embedding.convert", "--cache-dir", str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, **ADDED},
    )
    return {"/opt/nearline/models": folder}


def write_documents(folder: Path, first: int = 0, count: int = DOCUMENTS) -> None:
    """Writes documents d0.md, d1.md, … about rivers and boats."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        text = (
            f"# River {number}\n\nThe river {number} flows north. It carries {number * 7} boats.\n"
        )
        (folder / f"d{number}.md").write_text(text, "utf-8")


def kustomized(folder: str) -> str:
    """Returns the manifests of a folder, or skips the test if there is no kustomize."""
    command = [
        require_tool("kustomize"),
        "build",
        "--load-restrictor",
        "LoadRestrictionsNone",
        str(ROOT / folder),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load_record(log: str) -> dict[str, Any]:
    """Returns what `benchmarks.fleet.load` printed at its end."""
    record: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return record


def failures(record: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Returns what failed, by kind of request."""
    return {kind: one["failed"] for kind, one in record.items() if one["failed"]}
