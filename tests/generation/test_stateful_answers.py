"""Tests conversations, budgets, cached answers and tenants with a real Redis, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from generation.memory.token_budgets import TokenLimits
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.caller_file import CallerFile
from nearline.access.readers import ReaderFilter
from nearline.clients import GenerationClient
from nearline.errors import Conflict, NotFound, NotReady, Unauthenticated
from retrieval.redis_client.connection import connect
from tests.generation.backends.chat_server import finish, serving, streams
from tests.generation.conftest import DIM, ITEMS
from tests.generation.service_harness import ASKED, Came, ask, asking
from tests.metric_labels import label_values, naming
from tests.redis_server import needs_redis, valkey
from tests.retrieval.fakes import WordEmbedder

pytestmark = pytest.mark.service

GOOD = ("The kettle boils water in 3 minutes", " [1]. Done.")
STOP = finish("stop")


@needs_redis
async def test_a_conversation_continues_at_another_replica(store: Path) -> None:
    async with valkey() as redis:
        async with asking(store, redis=redis) as address:
            first = await ask(address, "How do I descale the kettle?", session_id="s 1")
        assert first.done.session is not None and first.done.session.saved
        # The first service has stopped; it held no part of the conversation.
        async with asking(store, redis=redis) as address:
            then = await ask(address, "and how long is its cord?", session_id="s 1")
            assert isinstance(then.events[0], c.Evidence)
            assert "kettle" in then.events[0].condensed.lower()
            assert then.citations[0].document_id == "kettle"
            async with GenerationClient(address) as client:
                session = await client.session("s 1")
                assert [turn.question for turn in session.turns] == [
                    "How do I descale the kettle?",
                    "and how long is its cord?",
                ]
                assert session.version == 2 and session.turns[1].answer == then.text
                assert await client.delete_session("s 1")
                assert not await client.delete_session("s 1")
                with pytest.raises(NotFound, match="there is no session"):
                    await client.session("s 1")


@needs_redis
async def test_two_tabs_share_one_conversation(store: Path) -> None:
    async with valkey() as redis, asking(store, redis=redis) as address:
        first = await ask(address, session_id="tabs")
        assert first.done.session is not None
        seen = first.done.session.version
        both = await asyncio.gather(
            ask(address, "how long is the cord?", session_id="tabs", session_version=seen),
            ask(address, "and the lid?", session_id="tabs", session_version=seen),
            return_exceptions=True,
        )
        saved = 0
        for came in both:
            if isinstance(came, Conflict):
                continue
            assert isinstance(came, Came) and came.done.session is not None
            saved += came.done.session.saved
            assert came.done.session.saved or "another caller" in came.done.session.reason
        assert saved == 1
        with pytest.raises(Conflict, match="has version 2"):
            await ask(address, session_id="tabs", session_version=seen)
        # A caller that names no version loses no turn.
        await asyncio.gather(*(ask(address, f"question {n}?", session_id="tabs") for n in range(3)))
        async with GenerationClient(address) as client:
            assert len((await client.session("tabs")).turns) == 5


@needs_redis
async def test_an_unavailable_redis_affects_only_conversations(store: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(valkey())
        address = await stack.enter_async_context(asking(store, redis=redis))
        await ask(address, session_id="s")
        assert (await ask(address)).done.served_by.source is not c.Source.FALLBACK
    async with asking(store, redis=redis, limits=TokenLimits(day=1_000_000)) as address:
        # Single questions need no Redis; a conversation does, and fails before any event.
        came = await ask(address)
        assert came.citations and came.done.served_by.rung == "extractive"
        with pytest.raises(NotReady, match="Redis does not answer"):
            await ask(address, session_id="s")


@needs_redis
async def test_models_are_not_called_if_budgets_cannot_be_checked(store: Path) -> None:
    async with valkey() as redis:
        pass
    async with serving(streams(*GOOD, STOP)) as server:
        limits = TokenLimits(day=1_000_000)
        async with asking(store, server.url, redis=redis, limits=limits) as address:
            came = await ask(address, backend="large")
        assert came.done.served_by.rung == "extractive"
        assert "budgets cannot be checked" in came.done.served_by.reason
        assert not server.exchanges


@needs_redis
async def test_an_exhausted_budget_calls_no_model(store: Path) -> None:
    async with valkey() as redis, serving(streams(*GOOD, STOP)) as server:
        limits = TokenLimits(tenant_day=4_000)
        async with asking(store, server.url, redis=redis, limits=limits) as address:
            for _ in range(20):
                came = await ask(address, backend="large", fresh=True)
                if came.done.served_by.rung == "extractive":
                    break
        assert "the budget of tenant 'default', 4,000 tokens, is used up" in (
            came.done.served_by.reason
        )
        assert 1 <= len(server.exchanges) < 20


@needs_redis
async def test_a_cached_answer_is_reused_while_its_sources_are_unchanged(store: Path) -> None:
    async with valkey() as redis, serving(streams(*GOOD, STOP)) as server:
        async with asking(store, server.url, redis=redis) as address:
            first = await ask(address, backend="large")
            again = await ask(address, "  " + ASKED.rstrip("?") + " ", backend="large")
            assert again.text == first.text and again.citations == first.citations
            assert again.done.served_by.source is c.Source.CACHE
            assert again.done.served_by.rung == "large" and not again.usage.completion_tokens
            assert len(server.exchanges) == 1
            fresh = await ask(address, backend="large", fresh=True)
            warm = await ask(address, backend="large", temperature=0.5)
            assert {fresh.done.served_by.source, warm.done.served_by.source} == {c.Source.LIVE}
        changed = [replace(ITEMS[0], text="It boils water in 4 minutes."), *ITEMS[1:]]
        await build_snapshot(changed, BuildOptions(store=str(store)), WordEmbedder(DIM))
        async with asking(store, server.url, redis=redis) as address:
            later = await ask(address, backend="large")
            assert later.done.served_by.source is not c.Source.CACHE


@needs_redis
async def test_in_a_conversation_only_answers_without_a_model_are_reused(store: Path) -> None:
    cache, live = c.Source.CACHE, c.Source.LIVE
    # By backend and whether there is a model: the sources of the second and the third answer.
    cases = [("extractive", True, cache), ("", False, cache), ("large", True, live)]
    async with valkey() as redis, serving(streams(*GOOD, STOP)) as server:
        for backend, model, source in cases:
            name = f"{backend} {model}"
            async with asking(store, server.url if model else "", redis=redis) as address:
                asked = [
                    (await ask(address, session_id=name, backend=backend)).done.served_by.source
                    for _ in range(3)
                ]
            assert asked[1:] == [source] * 2, name


@needs_redis
async def test_tenants_see_only_their_own_items(tmp_path: Path) -> None:
    items = [
        replace(ITEMS[0], attributes={"readers": ["tenant:b"]}),
        replace(ITEMS[1], attributes={"readers": ["tenant:a", "role:staff"]}),
        replace(ITEMS[2], attributes={"readers": ["public"]}),
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path)), WordEmbedder(DIM))
    names = {"a": Caller("a"), "b": Caller("b"), "c": Caller("c", ("staff",))}
    callers = {hashlib.sha256(name.encode()).hexdigest(): who for name, who in names.items()}
    known, readers = CallerFile(callers), ReaderFilter("readers")
    async with (
        valkey() as redis,
        asking(tmp_path, redis=redis, readers=readers, callers=known) as address,
    ):
        theirs = await ask(address, token="b", session_id="talk")
        assert theirs.citations[0].document_id == "kettle"
        mine = await ask(address, token="a", session_id="talk")
        assert mine.done.served_by.source is not c.Source.CACHE
        assert "kettle" not in {one.document_id for one in mine.citations}
        assert isinstance(mine.events[0], c.Evidence)
        assert "kettle" not in {hit.id for hit in mine.events[0].documents}
        staff = await ask(address, "the lamp takes batteries", token="c")
        assert "lamp" in {one.document_id for one in staff.citations}
        async with GenerationClient(address, token="a") as client:
            # The same id is another conversation, and items of other tenants count as gone.
            assert len((await client.session("talk")).turns) == 1
            # A wrong text does not tell that the item is there.
            wrong = [replace(one, text_hash="0" * 64) for one in theirs.citations]
            checks = (await client.verify([*theirs.citations, *wrong])).checks
            assert {check.verdict for check in checks} == {c.Verdict.GONE}
            assert await client.delete_session("talk")
        async with GenerationClient(address, token="b") as client:
            checks = (await client.verify(theirs.citations)).checks
            assert {check.verdict for check in checks} == {c.Verdict.VALID}
            assert len((await client.session("talk")).turns) == 1
        for token in ("", "nobody"):
            with pytest.raises(Unauthenticated):
                await ask(address, token=token)
        # A question about what both may read is answered for each, and reused for that one only.
        sources = [
            (await ask(address, "what did the fox praise?", token=token)).done.served_by.source
            for token in ("a", "b", "a", "b")
        ]
        assert sources == [c.Source.LIVE, c.Source.LIVE, c.Source.CACHE, c.Source.CACHE]
        found = label_values()
        assert "Generate" in found
        assert naming(found, {"talk", "fox", "kettle", "tenant:", *callers}) == set()
        assert found.isdisjoint(names)


@needs_redis
@pytest.mark.long
async def test_one_tenant_cannot_fill_redis_with_conversations(store: Path) -> None:
    callers = CallerFile(
        {hashlib.sha256(one.encode()).hexdigest(): Caller(one) for one in ("shop", "other")}
    )
    async with valkey() as url, connect(url, timeout_s=10.0) as redis:
        await redis.config_set("maxmemory", 32 << 20)
        async with asking(store, redis=url, callers=callers) as address:
            # More than a turn may have.
            came = await ask(address, "😀" * 32_768, session_id="large", token="shop")
            assert came.done.session is not None and not came.done.session.saved
            assert "turns of at most 65,536; ask a shorter" in came.done.session.reason
            saved = 0
            while True:
                came = await ask(
                    address, "kettle " * 4_600, session_id=f"s{saved}", fresh=True, token="shop"
                )
                assert came.citations and came.done.session is not None
                if not came.done.session.saved:
                    break
                saved += 1
            # An eighth of 32 MiB, in turns of 32 KB and a cached answer.
            assert 60 < saved <= (4 << 20) // 32_200
            assert "the tenant has stored 4,194,304 bytes" in came.done.session.reason
            came = await ask(address, session_id="s", token="other")
            assert came.done.session is not None and came.done.session.saved
            used = int((await redis.info("memory"))["used_memory"])
            print(f"\n6: {used / (1 << 20):.1f} of 32 MiB of Redis used after {saved} turns")
            assert used < 16 << 20


@needs_redis
async def test_answers_are_given_and_not_stored_while_redis_is_nearly_full(store: Path) -> None:
    async with valkey() as url, connect(url, timeout_s=10.0) as redis:
        used = int((await redis.info("memory"))["used_memory"])
        await redis.set("changes of items", b"x" * (8 << 20))
        await redis.config_set("maxmemory", used + (9 << 20))
        keys = await redis.dbsize()
        async with asking(store, redis=url) as address:
            came = await ask(address, session_id="s")
        assert came.citations and came.done.session is not None
        assert not came.done.session.saved
        assert "Redis is nearly full; delete conversations, or" in came.done.session.reason
        assert await redis.dbsize() == keys
