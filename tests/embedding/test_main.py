"""Tests the end of the service's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.service
ROOT = Path(__file__).parents[2]
# A service whose model breaks as soon as it is loaded.
SCRIPT = """
from embedding import __main__ as program
from embedding.service import EmbeddingService
from nearline import serving

class Broken:
    async def close(self):
        print("closed")

async def opened(settings, folder, *, on_broken):
    on_broken()
    return Broken()

EmbeddingService.open = opened
serving.run(program.main(["--port=0"]), "embedding")
"""


def test_a_broken_model_closes_the_service_and_ends_the_process_with_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "closed\n"), done.stderr
    assert "the model fails on every text" in done.stderr
