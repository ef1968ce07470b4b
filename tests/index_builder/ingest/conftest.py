"""Fixtures for the queue: a shared client, and services of a test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from nearline.clients import IngestClient
from nearline_cli.local.processes import ingest_process
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.redis_server import valkey

IdleService = Callable[..., AbstractAsyncContextManager[IngestClient]]


@pytest.fixture
async def ingest_client(queue_processes: QueueProcesses) -> AsyncIterator[IngestClient]:
    """Returns a client of the queue shared by all tests."""
    async with IngestClient(queue_processes.ingest) as client:
        yield client


@pytest.fixture
def idle_service() -> IdleService:
    """Returns a function that starts a service with a Redis of its own and without workers."""

    @contextlib.asynccontextmanager
    async def start(*arguments: str) -> AsyncIterator[IngestClient]:
        async with (
            valkey() as url,
            ingest_process(url, arguments) as process,
            IngestClient(process.address) as client,
        ):
            yield client

    return start
