"""Fixtures of the retrieval tests: services over small snapshots, in this process or beside it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from nearline.contract import Embedder
from nearline.store.snapshot import Store
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.router.service import RetrievalService
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider

OpenService: TypeAlias = Callable[..., AbstractAsyncContextManager[RetrievalService]]


@pytest.fixture
def open_service() -> OpenService:
    """Returns what opens a service over a store, all shards in this process."""

    @contextlib.asynccontextmanager
    async def opened(root: Path, **embedders: Embedder) -> AsyncIterator[RetrievalService]:
        shards = LocalShardProvider(Store(root), 2)
        service = RetrievalService(Embedders(embedders))
        try:
            for snapshot in read_current_snapshots(Store(root), ()):
                service.serve(ServedCollection(snapshot, await shards.prepare(snapshot)))
            yield service
        finally:
            await shards.close()

    return opened
