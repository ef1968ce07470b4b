"""Which Redis may keep changes, and when its reply proves that a change is on disk."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from nearline.errors import NotReady
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import (
    Durability,
    describe_durability,
    durability_problem,
)
from retrieval.redis_client.persistence import UNKNOWN, RedisPersistence

URL = "redis://127.0.0.1:1/0"
GOOD = RedisPersistence(
    version="8.1",
    appendonly="yes",
    appendfsync="everysec",
    maxmemory_policy="noeviction",
    waits=True,
)
OLD = replace(GOOD, version="6.2", appendfsync="always", waits=False)


@pytest.mark.parametrize(
    ("persistence", "remedy"),
    [
        (GOOD, ""),
        (OLD, ""),
        (replace(GOOD, appendonly=UNKNOWN, maxmemory_policy=UNKNOWN), ""),
        (replace(GOOD, appendonly="no"), "set appendonly yes"),
        (replace(GOOD, maxmemory_policy="volatile-ttl"), "set maxmemory-policy noeviction"),
        (replace(OLD, appendfsync="everysec"), "set appendfsync always"),
        (replace(OLD, appendfsync=UNKNOWN), "set appendfsync always"),
    ],
)
def test_a_redis_that_would_lose_changes_is_refused_with_a_remedy(
    persistence: RedisPersistence, remedy: str
) -> None:
    problem = durability_problem(persistence)
    assert remedy in problem and bool(problem) == bool(remedy)


def test_operators_learn_when_a_change_is_acknowledged() -> None:
    assert "before it is acknowledged (appendfsync always)" in describe_durability(OLD)
    assert describe_durability(GOOD).endswith("(WAITAOF; appendfsync everysec)")
    assert describe_durability(replace(GOOD, appendfsync=UNKNOWN)).endswith("(WAITAOF)")


class SentWords:
    """A pipeline that notes its commands, and replies to each with its number."""

    def __init__(self) -> None:
        self.words: list[tuple[object, ...]] = []

    def execute_command(self, *words: object) -> None:
        self.words.append(words)

    async def execute(self, *, raise_on_error: bool) -> list[int]:
        assert not raise_on_error
        return list(range(len(self.words)))


@pytest.mark.parametrize(
    ("url", "replicas", "waits"),
    [
        (URL, None, [("WAITAOF", 1, 0, 1_500)]),
        (URL, 2, [("WAIT", 2, 500), ("WAITAOF", 1, 2, 1_000)]),
        # Another server takes over there: it must have what was acknowledged.
        ("redis+cluster://127.0.0.1:1", None, [("WAIT", 1, 500), ("WAITAOF", 1, 1, 1_000)]),
        ("redis+cluster://127.0.0.1:1", 0, [("WAITAOF", 1, 0, 1_500)]),
        ("redis+sentinel://127.0.0.1:1/a", None, [("WAIT", 1, 500), ("WAITAOF", 1, 1, 1_000)]),
    ],
)
async def test_redis_waits_for_disk_and_replicas_as_long_as_asked(
    url: str, replicas: int | None, waits: list[tuple[object, ...]]
) -> None:
    client = connect(url)
    pipeline = SentWords()
    pipeline.execute_command("SET", "a", "b")
    replies, kept = await Durability(client, replicas, 1.5).execute(pipeline)
    assert pipeline.words == [("SET", "a", "b"), *waits]
    assert (replies, kept) == ([0], len(waits))
    await client.aclose()


@pytest.mark.parametrize(
    ("known", "replicas", "reply", "problem"),
    [
        (GOOD, 0, [1, 0], ""),
        (GOOD, 2, [1, 2], ""),
        (GOOD, 0, [0, 0], "0 of 1 Redis and 0 of 0 replicas"),
        (GOOD, 2, [1, 1], "1 of 1 Redis and 1 of 2 replicas"),
        # It was asked for in vain, and is not needed: every change is on disk at once.
        (OLD, 0, ResponseError("unknown command 'WAITAOF'"), ""),
        # Somebody turned the file off after the last check.
        (GOOD, 0, ResponseError("appendonly is off"), "durability (appendonly is off)"),
        (None, 0, ResponseError("appendonly is off"), "durability (appendonly is off)"),
    ],
)
async def test_a_change_counts_as_durable_only_if_the_reply_proves_it(
    known: RedisPersistence | None, replicas: int, reply: object, problem: str
) -> None:
    async with connect(URL) as client:
        durability = Durability(client, replicas)
        durability._persistence = known
        if not problem:
            durability.check_reply(reply)
            return
        with pytest.raises(NotReady, match=re.escape(problem)) as caught:
            durability.check_reply(reply)
        assert "may not be durable" in caught.value.message and caught.value.retry_after_s


@pytest.mark.parametrize("reply", [ResponseError("appendonly is off"), [0, 0]])
async def test_a_redis_that_refuses_to_wait_is_examined_before_the_next_change(
    reply: object,
) -> None:
    async with connect(URL, retries=0) as client:
        durability = Durability(client)
        durability._persistence, durability._checked_at = GOOD, float("inf")
        await durability.check()
        with pytest.raises(NotReady):
            durability.check_reply(reply)
        if isinstance(reply, list):
            await durability.check()
        else:
            with pytest.raises(NotReady, match="Redis does not answer"):
                await durability.check()


async def test_an_old_redis_cannot_confirm_replicas() -> None:
    async with connect(URL) as client:
        for persistence, replicas in ((OLD, 0), (GOOD, 1)):
            durability = Durability(client, replicas)
            durability._persistence, durability._checked_at = persistence, float("inf")
            await durability.check()
        durability = Durability(client, 1)
        durability._persistence, durability._checked_at = OLD, float("inf")
        with pytest.raises(NotReady, match=r"Redis 6\.2 has no WAITAOF .* in 1 replicas"):
            await durability.check()
