"""How much the long tests do: a part of it in `make test`, all of it in `make nightly`."""

from __future__ import annotations

import os

import pytest

NIGHTLY = os.environ.get("NEARLINE_TEST_NIGHTLY") == "1"
nightly = pytest.mark.skipif(not NIGHTLY, reason="takes minutes: make nightly")


def scaled(count: int, *, nightly: int) -> int:
    """Returns how many of something a test makes: `count`, or `nightly` in a nightly run."""
    return nightly if NIGHTLY else count
