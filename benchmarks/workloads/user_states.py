"""Synthetic histories of users, and the memory that Redis needs for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nearline_cli.local.processes import redis_process
from retrieval.redis_client.connection import connect
from retrieval.users.codec import EncodedHistory, pack
from retrieval.users.keys import user_keys

NOW_S = 1_800_000_000
_TTL_S = 180 * 86_400
_ITEMS = 100_000
_MAX_EVENTS = 113
_PIPELINE_USERS = 1_000


def histories(users: int, rng: np.random.Generator) -> Iterator[EncodedHistory]:
    """Generates histories; the number of an item is its rank by popularity."""
    popularity = np.cumsum(1 / np.arange(1, _ITEMS + 1))
    popularity /= popularity[-1]
    for _ in range(users):
        n = int(rng.integers(1, _MAX_EVENTS, endpoint=True))
        # One event in eight begins a visit.
        visits = rng.random(n) < 1 / 8
        gaps = np.where(visits, rng.exponential(5 * 86_400, n), rng.exponential(120, n))
        yield EncodedHistory(
            np.searchsorted(popularity, rng.random(n)).tolist(),
            (NOW_S - np.cumsum(gaps.astype(np.int64))).tolist(),
            rng.choice(3, n, p=(0.8, 0.15, 0.05)).tolist(),
            [None] * n,
        )


async def measure_states(users: int, seed: int) -> dict[str, float]:
    """Writes the users to an empty Redis; returns the figures."""
    events = blobs = 0
    generated = histories(users, np.random.default_rng(seed))
    with tempfile.TemporaryDirectory() as folder:
        async with (
            redis_process(Path(folder)) as url,
            connect(url, timeout_s=60.0) as client,
        ):
            before = (await client.info("memory"))["used_memory"]
            for start in range(0, users, _PIPELINE_USERS):
                async with client.pipeline(transaction=False) as pipe:
                    for number, history in zip(
                        range(start, min(start + _PIPELINE_USERS, users)), generated, strict=False
                    ):
                        blob = pack(history, b"\0\1\2\3")
                        key = user_keys("default", f"user-{number:07d}").state
                        pipe.hset(key, "h", blob)
                        pipe.expire(key, _TTL_S)
                        events += len(history.items)
                        blobs += len(blob)
                    await pipe.execute()
            after = (await client.info("memory"))["used_memory"]
    return {
        "users": users,
        "events_per_user": round(events / users, 1),
        "packed_bytes_per_user": round(blobs / users, 1),
        "redis_bytes_per_user": round((after - before) / users, 1),
    }
