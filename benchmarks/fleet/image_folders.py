"""Provides what images contain besides packages: the converted model."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

# The images lack torch, which a development environment has.
ADDED = {"NEARLINE_EMBEDDING_BACKEND": "openvino"}
_FOLDER = Path(__file__).parents[2] / ".cache" / "fleet"


@cache
def image_folders() -> dict[str, Path]:
    """Returns the folders of this machine by their path in a container; converts the model."""
    subprocess.run(
        [sys.executable, "-P", "-m", "embedding.convert", "--cache-dir", str(_FOLDER)],
        check=True,
        capture_output=True,
        env={**os.environ, **ADDED},
    )
    return {"/opt/nearline/models": _FOLDER}
