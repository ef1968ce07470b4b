"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Gives a seeded generator."""
    return np.random.default_rng(20261125)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Gives the folder of shared data sets; skips where there is none."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("NEARLINE_DATA", default))
    if not folder.is_dir():
        pytest.skip("no shared data: set NEARLINE_DATA to a folder that holds scifact/ and others")
    return folder
