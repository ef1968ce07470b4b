"""Dropping a collection removes what any service stored of it, and nothing of others."""

from __future__ import annotations

from generation.memory.answer_cache import AnswerCache, AnswerKey, CachedAnswer
from generation.memory.sessions import SessionStore
from nearline import contract as c
from nearline.access.caller import Caller
from retrieval.redis_client.collection_keys import remove_keys
from retrieval.redis_client.connection import connect
from tests.redis_server import give_redis_url, needs_redis

__all__ = ["give_redis_url"]  # A fixture.
pytestmark = needs_redis


def answer_key(collection: str) -> AnswerKey:
    return AnswerKey(
        collection=collection,
        caller=Caller(tenant="acme"),
        question="what is it made of",
        options=c.Question(text="what is it made of?"),
        snapshot_id="20261128T000000Z-000000",
        fingerprint="f",
        policy="1",
    )


async def test_answers_and_conversations_go_with_their_collection(redis_url: str) -> None:
    redis = connect(redis_url, timeout_s=10.0)
    try:
        cache = AnswerCache(redis, ttl_s=60)
        sessions = SessionStore(redis)
        turn = c.Turn("what is it made of?", "brass")
        for name in ("shop", "shop-2"):
            await cache.put(answer_key(name), CachedAnswer([c.Delta("brass")], "extractive", 1.0))
            await sessions.append(name, "acme", "s", turn, 0)
        assert await remove_keys(redis, "shop") == 2
        kept = await cache.get(answer_key("shop-2"))
        assert kept is not None and kept.text == "brass"
        assert await cache.get(answer_key("shop")) is None
        assert (await sessions.load("shop-2", "acme", "s")).version == 1
        assert (await sessions.load("shop", "acme", "s")).version == 0
    finally:
        await redis.aclose()
