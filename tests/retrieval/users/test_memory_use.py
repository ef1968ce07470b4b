"""The memory that Redis needs for a user stays within its limit."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from redis import Redis

from nearline.contract.recommendations import Interaction
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.interactions import START
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis]
USERS = scaled(500, nightly=2_000)
EVENTS = 57
ITEMS = 20_000
MOST_BYTES = 650


async def test_a_user_of_57_events_takes_650_bytes(
    states: UserStates, shared_redis: str, rng: np.random.Generator
) -> None:
    popularity = np.cumsum(1 / np.arange(1, ITEMS + 1))
    popularity /= popularity[-1]
    # Of any length up to twice the mean, whatever the number of users.
    numbers = np.linspace(1, 2 * EVENTS - 1, USERS).round().astype(int)
    asked = [
        Interaction(
            item_id=f"item-{item:05d}",
            user_id=f"user-{user:05d}",
            kind=["view", "cart", "purchase"][kind],
            time=START + timedelta(seconds=second),
        )
        for user, number in enumerate(numbers.tolist())
        for item, kind, second in zip(
            np.searchsorted(popularity, rng.random(number)).tolist(),
            rng.integers(0, 3, number).tolist(),
            rng.exponential(6 * 3_600, number).cumsum().tolist(),
            strict=True,
        )
    ]
    for start in range(0, len(asked), 1_024):
        await states.record("default", asked[start : start + 1_024])
    with Redis.from_url(shared_redis) as client, client.pipeline(transaction=False) as pipe:
        keys = [key for key in client.scan_iter(count=1_000) if b":u:" in key]
        assert len(keys) == USERS
        for key in keys:
            pipe.memory_usage(key)
        mean = sum(pipe.execute()) / USERS
    assert abs(len(asked) / USERS - EVENTS) < 2
    assert mean <= MOST_BYTES
