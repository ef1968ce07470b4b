"""Clients of the queue that all tests share, and doors that a test has for itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from nearline.clients import IngestClient
from nearline_cli.local.processes import ingest_process
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.redis_server import valkey

IdleDoor = Callable[..., AbstractAsyncContextManager[IngestClient]]


@pytest.fixture
async def door(queue_processes: QueueProcesses) -> AsyncIterator[IngestClient]:
    """Returns a client of the queue that all tests share."""
    async with IngestClient(queue_processes.door) as client:
        yield client


@pytest.fixture
def idle_door() -> IdleDoor:
    """Returns what starts a door with these arguments and a Redis of its own, and no workers."""

    @contextlib.asynccontextmanager
    async def start(*arguments: str) -> AsyncIterator[IngestClient]:
        async with (
            valkey() as url,
            ingest_process(url, arguments) as process,
            IngestClient(process.address) as client,
        ):
            yield client

    return start
