"""An empty Redis for each test, and collections that follow a log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis

from tests.redis_server import give_shared_redis
from tests.retrieval.live.followed_collection import Followed, Open

__all__ = ["give_shared_redis"]  # A fixture.


@pytest.fixture(name="empty_redis")
def give_empty_redis(shared_redis: str) -> str:
    """Returns the URL of an empty Redis; for tests that carry `needs_redis`."""
    with Redis.from_url(shared_redis) as client:
        client.flushall()
    return shared_redis


@pytest_asyncio.fixture(name="opened")
async def give_opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Returns a factory of collections that follow a log in memory and are closed afterwards."""
    made: list[Followed] = []

    def make(**options: Any) -> Followed:
        made.append(Followed(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()
