"""The `nearline` command, as the tests of benchmarks run it: as a process."""

import pytest

from tests.nearline_cli.conftest import Run, nearline_process

__all__ = ["nearline_process"]


@pytest.fixture
def nearline(nearline_process: Run) -> Run:
    """Returns a function that runs `nearline` as a process, which handles signals."""
    return nearline_process
