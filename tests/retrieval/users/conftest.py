"""An empty Redis for each test, and user states over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from redis import Redis

from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability
from retrieval.users import states
from retrieval.users.states import UserStates
from tests.redis_server import give_shared_redis

__all__ = ["give_shared_redis"]  # A fixture.
Open: TypeAlias = Callable[..., UserStates]


@pytest.fixture(autouse=True)
def give_patient_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a read of a state wait for longer than a list would, on a busy machine."""
    monkeypatch.setattr(states, "_READ_TIMEOUT_S", 10.0)


@pytest_asyncio.fixture(name="opened")
async def give_opened(shared_redis: str) -> AsyncIterator[Open]:
    """Returns what opens states of users, each as a process of its own would, over an empty
    Redis."""
    with Redis.from_url(shared_redis) as client:
        client.flushall()
    clients = []

    def make(**options: Any) -> UserStates:
        clients.append(connect(shared_redis, timeout_s=10.0, retries=0))
        return UserStates(clients[-1], Durability(clients[-1]), **options)

    yield make
    for one in clients:
        await one.aclose()


@pytest_asyncio.fixture(name="states")
async def give_states(opened: Open) -> UserStates:
    """Returns states of users over an empty Redis."""
    return opened()
