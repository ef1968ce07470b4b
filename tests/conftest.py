"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.index_builder.ingest.queue_processes import queue_processes
from tests.milvus.fixtures import (
    lite_server,
    lite_uri,
    milvus_uri,
    standalone_server,
    standalone_uri,
)
from tests.scale import NIGHTLY

__all__ = [
    "lite_server",
    "lite_uri",
    "milvus_uri",
    "queue_processes",
    "standalone_server",
    "standalone_uri",
]


_LEFT_OUT = {
    "milvus": "asks a real Milvus: pytest -m milvus",
    "long": "takes long: make test-long",
}

# Other tests, and what they start, run on the same cores. New examples are drawn by night only: a
# failure by day is due to the change that it is seen with.
if settings.get_current_profile_name() == "default":
    settings.register_profile("shared cores", deadline=None, derandomize=not NIGHTLY)
    settings.load_profile("shared cores")


# A shell's `&` has children ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without the collector of garbage: what is imported stays until the end.

    It would look through it all again and again, which takes a fifth of this time, and later
    whenever a test asks for a collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what asks a Milvus or takes long, unless the marks that are asked for name it.

    Files that start processes come first, so that no long one is left to a single worker at the
    end.
    """
    starting = {item.path for item in items if item.get_closest_marker("service")}
    items.sort(key=lambda item: item.path not in starting)
    for mark, reason in _LEFT_OUT.items():
        if mark not in config.option.markexpr and not (mark == "long" and NIGHTLY):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=reason))
    if not Path("/dev/nvidia0").exists():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="this machine has no NVIDIA GPU"))


@pytest.fixture(autouse=True)
def root_logging() -> Generator[None]:
    """Restores the level and the handlers of the root logger.

    A service that a test starts in this process configures both, and later tests of the same
    worker would then see other records.
    """
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    for one in [*root.handlers]:
        if type(one) is logging.StreamHandler and one not in handlers:
            root.removeHandler(one)


@pytest.fixture
def rng() -> np.random.Generator:
    """Returns a seeded generator."""
    return np.random.default_rng(20261125)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Returns the folder of shared data sets; skips where there is none."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("NEARLINE_DATA", default))
    if not folder.is_dir():
        pytest.skip("no shared data: set NEARLINE_DATA to a folder that holds scifact/ and others")
    return folder
