"""Fixtures of the retrieval tests: services over small snapshots, in this process or beside it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from nearline.contract import Embedder
from nearline.snapshot import Store
from retrieval.embedders import Embedders
from retrieval.local_hosting import LocalShards
from retrieval.service import RetrievalService

OpenService: TypeAlias = Callable[..., AbstractAsyncContextManager[RetrievalService]]


@pytest.fixture
def open_service() -> OpenService:
    """Gives what opens a service over a store, all shards in this process."""

    @contextlib.asynccontextmanager
    async def opened(root: Path, **embedders: Embedder) -> AsyncIterator[RetrievalService]:
        shards = LocalShards(2)
        service = RetrievalService(Embedders(embedders))
        try:
            for served in await shards.load(Store(root), ()):
                service.serve(served)
            yield service
        finally:
            await shards.close()

    return opened
