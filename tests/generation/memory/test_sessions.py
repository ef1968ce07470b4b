"""Tests conversations in a real Redis: against a model, with races, and during failures."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings, strategies as st

from generation.memory.sessions import SessionStore, _encoded, recent_turns, session_key
from nearline.contract import MAX_SESSION_ID, Session, Turn
from nearline.errors import Conflict, InvalidRequest, NotReady, SettingsError, Unsupported
from nearline.sentences import estimate_tokens
from nearline_cli.local.bundled_redis import SETTINGS
from nearline_cli.local.processes import free_port
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.persistence import read_persistence
from tests.redis_server import give_redis_url, give_shared_redis, needs_redis, valkey

__all__ = ["give_redis_url", "give_shared_redis"]  # Fixtures.

pytestmark = [pytest.mark.service, needs_redis]
WHERE = ("default", "acme")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOSTILE = [
    "a/b",
    "a%2Fb",
    "}{",
    "*",
    "a b",
    "naïve",
    "日本語",
    "🦊" * 128,
    "x:session",
    "\\x00",
    "'",
]
text = st.text(st.characters(), max_size=40)
a_turn = st.builds(
    Turn,
    text,
    text,
    text,
    st.just("20261125T004218Z-1f3a9c"),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_s=10.0)
    yield client
    await client.aclose()


def turn(number: int) -> Turn:
    return Turn(f"question {number}", f"answer {number}", "", "", NOON)


async def test_an_appended_turn_is_loaded_unchanged(redis: Redis) -> None:
    sessions = SessionStore(redis, ttl_s=3_600)
    full = Turn(
        "and that?\n\x00", "so: “ja” \ud800 [1]", "and what?", "20261125T004218Z-1f3a9c", NOON
    )
    assert await sessions.load(*WHERE, "s") == Session(id="s", version=0, turns=())
    assert await sessions.append(*WHERE, "s", full, 0) == 1
    assert await sessions.append(*WHERE, "s", Turn("q", ""), 1) == 2
    before = datetime.now(UTC)
    session = await sessions.load(*WHERE, "s")
    assert (session.id, session.version, session.turns) == ("s", 2, [full, Turn("q", "")])
    assert session.expire_time is not None
    left = session.expire_time - before - timedelta(hours=1)
    assert abs(left) < timedelta(seconds=20)


async def test_exactly_one_of_two_concurrent_callers_appends(redis: Redis) -> None:
    sessions = SessionStore(redis)
    for version in range(10):
        tries = [sessions.append(*WHERE, "s", turn(one), version) for one in range(8)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        lost = [one for one in done if isinstance(one, Conflict)]
        assert (done.count(version + 1), len(lost)) == (1, 7)
        assert f"has version {version + 1}, not {version}: another caller" in lost[0].message
    session = await sessions.load(*WHERE, "s")
    assert (session.version, len(session.turns)) == (10, 10)


async def test_a_change_sent_twice_is_applied_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As redis-py does after a lost reply.
    sessions = SessionStore(redis)
    monkeypatch.setattr(
        "generation.memory.sessions.secrets.token_hex", lambda n: "0123456789abcdef"
    )
    assert await sessions.append(*WHERE, "s", turn(1), 0) == 1
    assert await sessions.append(*WHERE, "s", turn(1), 0) == 1
    assert len((await sessions.load(*WHERE, "s")).turns) == 1


async def test_a_turn_renews_the_expiry_and_reading_does_not(redis: Redis) -> None:
    key = session_key(*WHERE, "s")
    await SessionStore(redis, ttl_s=100).append(*WHERE, "s", turn(1), 0)
    await redis.expire(key, 10)
    await SessionStore(redis, ttl_s=100).load(*WHERE, "s")
    assert await redis.ttl(key) <= 10
    await SessionStore(redis, ttl_s=100).append(*WHERE, "s", turn(2), 1)
    assert 10 < await redis.ttl(key) <= 100
    await redis.pexpireat(key, 1)
    assert (await SessionStore(redis).load(*WHERE, "s")).version == 0
    with pytest.raises(Conflict, match=r"has version 0, not 2: .* or it was deleted"):
        await SessionStore(redis).append(*WHERE, "s", turn(3), 2)


async def test_a_turn_that_drops_the_oldest_one_renews_the_expiry(redis: Redis) -> None:
    sessions = SessionStore(redis, ttl_s=100, max_turns=2)
    for number in range(2):
        await sessions.append(*WHERE, "s", turn(number), number)
    await redis.expire(session_key(*WHERE, "s"), 10)
    await sessions.append(*WHERE, "s", turn(2), 2)
    assert (await sessions.load(*WHERE, "s")).turns == [turn(1), turn(2)]
    assert 10 < await redis.ttl(session_key(*WHERE, "s")) <= 100


async def test_the_script_is_sent_to_a_server_without_it(redis: Redis) -> None:
    sessions = SessionStore(redis)
    await sessions.append(*WHERE, "s", turn(1), 0)
    await redis.script_flush()
    assert await sessions.append(*WHERE, "s", turn(2), 1) == 2


@pytest.mark.parametrize("session_id", ["", "x" * (MAX_SESSION_ID + 1), "a\nb", "\x00", "\u200b"])
def test_a_malformed_id_is_refused(session_id: str) -> None:
    with pytest.raises(InvalidRequest, match=r"use 1\.\.128 printable characters") as caught:
        session_key(*WHERE, session_id)
    assert caught.value.field == "session_id"


def test_no_two_conversations_share_a_key_and_each_has_one_slot() -> None:
    parts = ["a", *HOSTILE]
    keys = {session_key(c, t, i) for c in ("a", "b") for t in ["", *parts] for i in parts}
    assert len(keys) == 2 * (len(parts) + 1) * len(parts)
    for key in keys:
        assert (key.count("{"), key.count("}"), key.count("/")) == (1, 1, 2)
        assert key.isascii()
    with pytest.raises(InvalidRequest):
        session_key("../b", "", "s")


async def test_hostile_ids_keep_their_own_turns(redis: Redis) -> None:
    sessions = SessionStore(redis)
    for number, name in enumerate(HOSTILE):
        await sessions.append("default", name, name, turn(number), 0)
    for number, name in enumerate(HOSTILE):
        assert (await sessions.load("default", name, name)).turns == [turn(number)]
        assert (await sessions.load("default", "", name)).version == 0
    assert await sessions.delete("default", "*", "*")
    assert await redis.dbsize() == len(HOSTILE) - 1


@pytest.mark.parametrize(
    "value",
    [
        b"text",
        [b"other"],
        [b"nearline-session 2 1 0123456789abcdef", b"{}"],
        [b"nearline-session 1 1 0123456789abcdef", b"{}"],
        [b"nearline-session 1 1 0123456789abcdef", b"\xff"],
        [b"nearline-session 1 1 0123456789abcdef", b"[]"],
        [b"nearline-session 1 1 0123456789abcdef", b'{"question":1,"answer":"","condensed":"",'],
    ],
)
async def test_an_unreadable_value_is_reported_and_can_be_deleted(
    redis: Redis, value: bytes | list[bytes]
) -> None:
    sessions, key = SessionStore(redis), session_key(*WHERE, "s")
    if isinstance(value, bytes):
        await redis.set(key, value)
    else:
        await redis.rpush(key, *value)
    with pytest.raises(Unsupported, match="delete it with nearline sessions delete"):
        await sessions.load(*WHERE, "s")
    if isinstance(value, bytes) or b" 1 1 " not in value[0]:
        with pytest.raises(Unsupported, match="session 's' has a format that this version"):
            await sessions.append(*WHERE, "s", turn(1), 0)
    assert await sessions.delete(*WHERE, "s")
    assert not await sessions.delete(*WHERE, "s")
    assert await sessions.append(*WHERE, "s", turn(1), 0) == 1


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_the_store_behaves_like_a_list_in_memory(redis_url: str, data: st.DataObject) -> None:
    max_turns, max_bytes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 700))

    async def run() -> None:
        async with connect(redis_url, timeout_s=10.0) as redis:
            await redis.flushdb()
            await follow(SessionStore(redis, max_turns=max_turns, max_bytes=max_bytes))

    async def follow(sessions: SessionStore) -> None:
        model: list[Turn] = []
        version = 0
        for step in data.draw(st.lists(st.sampled_from("append stale delete".split()), max_size=9)):
            if step == "delete":
                assert await sessions.delete(*WHERE, "s") is (version > 0)
                model, version = [], 0
                continue
            new = data.draw(a_turn)
            if step == "stale":
                with pytest.raises(Conflict):
                    await sessions.append(*WHERE, "s", new, version + 1)
                continue
            version += 1
            assert await sessions.append(*WHERE, "s", new, version - 1) == version
            model = [*model, new][-max_turns:]
            while len(model) > 1 and sum(map(_bytes, model)) > max_bytes:
                del model[0]
            session = await sessions.load(*WHERE, "s")
            assert (session.version, session.turns) == (version, model)

    asyncio.run(run())


def _bytes(one: Turn) -> int:
    from generation.memory.sessions import _encoded

    return len(_encoded(one))


@given(st.lists(a_turn, max_size=6), st.integers(0, 60))
def test_the_window_holds_the_newest_turns_that_fit(turns: list[Turn], max_tokens: int) -> None:
    def cost(some: list[Turn]) -> int:
        return sum(estimate_tokens(one.question) + estimate_tokens(one.answer) for one in some)

    kept = recent_turns(turns, max_tokens)
    assert cost(kept) <= max_tokens
    fitting = [n for n in range(len(turns) + 1) if cost(turns[len(turns) - n :]) <= max_tokens]
    if max(fitting) or not turns:
        assert kept == turns[len(turns) - max(fitting) :]
    else:
        # Not even the newest fits, so its answer is truncated as late as possible.
        last = turns[-1]
        assert bool(kept) is (estimate_tokens(last.question) <= max_tokens)
        for one in kept:
            assert one == replace(last, answer=one.answer)
            assert last.answer.startswith(one.answer)
            assert cost(kept) == max_tokens


def test_a_long_answer_leaves_its_question_in_the_window() -> None:
    turns = [Turn("old?", "old"), Turn("why?", "because it is so")]
    # Six letters per token: why ? becaus e it
    assert recent_turns(turns, 5) == [Turn("why?", "because it")]
    assert recent_turns(turns, 100) == turns
    assert recent_turns(turns, 1) == []


async def test_an_unavailable_redis_is_not_ready_and_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    client = connect(f"redis://127.0.0.1:{port}/0", timeout_s=10.0)
    sessions = SessionStore(client)
    with pytest.raises(NotReady, match="Redis does not answer"):
        await sessions.load(*WHERE, "s")
    async with valkey(tmp_path, port):
        await sessions.append(*WHERE, "s", turn(1), 0)
    for call in (
        sessions.load(*WHERE, "s"),
        sessions.append(*WHERE, "s", turn(2), 1),
        sessions.delete(*WHERE, "s"),
    ):
        with pytest.raises(NotReady) as caught:
            await call
        assert caught.value.retry_after_s
    async with valkey(tmp_path, port):
        assert (await sessions.load(*WHERE, "s")).turns == [turn(1)]
        assert await sessions.append(*WHERE, "s", turn(2), 1) == 2
    await client.aclose()


async def test_a_hanging_redis_times_out(redis: Redis, redis_url: str) -> None:
    server = psutil.Process(int((await redis.info("server"))["process_id"]))
    server.send_signal(signal.SIGSTOP)
    try:
        async with connect(redis_url) as impatient, asyncio.timeout(5):
            with pytest.raises(NotReady, match="Timeout"):
                await SessionStore(impatient).load(*WHERE, "s")
    finally:
        server.send_signal(signal.SIGCONT)
    assert (await SessionStore(redis).load(*WHERE, "s")).version == 0


async def test_a_full_redis_refuses_and_keeps_its_data(redis: Redis) -> None:
    sessions = SessionStore(redis)
    await sessions.append(*WHERE, "s", turn(1), 0)
    await redis.config_set("maxmemory", "1")
    with pytest.raises(NotReady, match=r"Redis refuses .*maxmemory"):
        await sessions.append(*WHERE, "s", turn(2), 1)
    session = await sessions.load(*WHERE, "s")
    assert (session.version, session.turns) == (1, [turn(1)])


async def test_the_durability_is_read_from_redis(redis: Redis) -> None:
    kept = await read_persistence(redis)
    assert (kept.appendonly, kept.appendfsync) == (SETTINGS["appendonly"], SETTINGS["appendfsync"])
    assert (kept.maxmemory_policy, kept.weakness) == (SETTINGS["maxmemory-policy"], "")
    assert kept.version.startswith("9.")
    await redis.config_set("appendfsync", "everysec")
    assert "loses the last second" in (await read_persistence(redis)).weakness
    await redis.config_set("appendonly", "no")
    assert "lost when it restarts" in (await read_persistence(redis)).weakness
    # As managed services respond.
    await redis.acl_setuser("default", commands=["-config"])
    kept = await read_persistence(redis)
    assert (kept.appendonly, kept.appendfsync, kept.maxmemory_policy) == (
        "no",
        "unknown",
        "noeviction",
    )
    await redis.acl_setuser("default", commands=["-info"])
    kept = await read_persistence(redis)
    assert (kept.appendonly, kept.maxmemory_policy) == ("unknown", "unknown")
    assert (kept.waits, kept.weakness) == (True, "")


def test_a_malformed_address_is_reported_without_its_password() -> None:
    with pytest.raises(SettingsError, match="use redis://HOST:PORT/0") as caught:
        connect("http://:hunter2@there/0")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("max_turns", [1, 2, 5])
async def test_exactly_the_newest_turns_are_kept(shared_redis: str, max_turns: int) -> None:
    async with connect(shared_redis, timeout_s=10.0) as redis:
        sessions = SessionStore(redis, max_turns=max_turns)
        for number in range(max_turns + 2):
            await sessions.append(*WHERE, f"last {max_turns}", turn(number), number)
            session = await sessions.load(*WHERE, f"last {max_turns}")
            kept = range(max(0, number + 1 - max_turns), number + 1)
            assert [one.question for one in session.turns] == [f"question {n}" for n in kept]
            assert session.version == number + 1


@pytest.mark.parametrize(("room", "kept"), [(0, [1, 2]), (-1, [2])])
async def test_the_newest_turns_that_fit_into_the_bytes_are_kept(
    shared_redis: str, room: int, kept: list[int]
) -> None:
    turns = [turn(number) for number in range(3)]
    most = sum(len(_encoded(one)) for one in turns[1:]) + room
    async with connect(shared_redis, timeout_s=10.0) as redis:
        sessions = SessionStore(redis, max_bytes=most)
        for number, one in enumerate(turns):
            await sessions.append(*WHERE, f"room {room}", one, number)
        session = await sessions.load(*WHERE, f"room {room}")
    assert [one.question for one in session.turns] == [f"question {n}" for n in kept]
