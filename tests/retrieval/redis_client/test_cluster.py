"""The client of a Redis Cluster, on three real primaries."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ResponseError

from nearline.errors import NotReady
from retrieval.redis_client.cluster import ClusterClient, cluster_of
from retrieval.redis_client.collection_keys import remove_keys
from retrieval.redis_client.connection import RedisReader, connect, translate_redis_errors
from retrieval.redis_client.durability import Durability
from retrieval.redis_client.persistence import read_persistence
from retrieval.redis_client.servers import read_info
from retrieval.redis_client.streams import read_streams
from tests.local_cluster import ClusterProcess, LocalCluster, local_cluster
from tests.redis_cluster import give_primaries
from tests.redis_server import give_redis_url, needs_redis

__all__ = ["give_primaries", "give_redis_url"]
pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]

SET = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]"


@pytest_asyncio.fixture(loop_scope="module", name="client")
async def give_client(primaries: LocalCluster) -> AsyncIterator[Any]:
    client = connect(primaries.url, timeout_s=10.0, retries=0)
    yield client
    for node in primaries.primaries:
        await node.ask("FLUSHALL")
    await client.aclose()


def key_on(client: ClusterClient, node: ClusterProcess, prefix: str = "k") -> str:
    """Returns a key of a node."""
    names = (f"{prefix}{number}" for number in count())
    return next(name for name in names if client.node_of(name).port == node.port)


async def move(slot: int, source: ClusterProcess, to: ClusterProcess) -> None:
    """Moves an empty slot; only the two nodes know at first."""
    for node in (to, source):
        await node.ask("CLUSTER SETSLOT", slot, "NODE", await to.id())


async def test_replies_come_in_order_whatever_node_has_the_keys(client: Any) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(64):
            pipe.eval(SET, 1, f"k{number}", number)
        assert await pipe.execute() == [str(number).encode() for number in range(64)]
    assert await client.get("k7") == b"7"
    assert {key async for key in client.scan_iter(match="k*")} == {
        f"k{number}".encode() for number in range(64)
    }


async def test_a_script_is_known_wherever_it_is_named(client: Any) -> None:
    digest = hashlib.sha1(SET.encode()).hexdigest()
    async with client.pipeline(transaction=False) as pipe:
        pipe.eval(SET, 1, "k0", 0)
        for number in range(1, 64):
            pipe.evalsha(digest, 1, f"k{number}", number)
        assert await pipe.execute() == [str(number).encode() for number in range(64)]


async def test_waitaof_covers_every_node_that_was_written(client: Any) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(64):
            pipe.set(f"k{number}", number)
        pipe.execute_command("WAITAOF", 1, 0, 5_000)
        *_, kept = await pipe.execute()
    assert kept == [1, 0]


async def test_an_error_is_the_reply_of_its_command_alone(client: Any) -> None:
    await client.set("text", "a")
    async with client.pipeline(transaction=False) as pipe:
        pipe.set("k1", 1)
        pipe.incr("text")
        pipe.set("k2", 2)
        first, error, last = await pipe.execute(raise_on_error=False)
    assert (first, last) == (True, True)
    assert isinstance(error, ResponseError)
    with pytest.raises(ResponseError):
        await client.incr("text")


async def test_a_write_to_a_moved_slot_is_confirmed_by_the_node_that_has_it_now(
    primaries: LocalCluster, client: Any
) -> None:
    await client.initialize()
    source, target, _ = primaries.primaries
    key = key_on(client, source, "moved")
    slot = client.keyslot(key)
    await move(slot, source, target)
    assert client.node_of(key).port == source.port
    # The old node is asked first: it redirects, and runs none of both.
    async with client.pipeline(transaction=False) as pipe:
        pipe.eval(SET, 1, key, "a")
        pipe.evalsha(hashlib.sha1(SET.encode()).hexdigest(), 1, key_on(client, source), "b")
        pipe.execute_command("WAITAOF", 1, 0, 5_000)
        assert await pipe.execute() == [b"a", b"b", [1, 0]]
    assert await target.ask("GET", key) == b"a"
    assert await client.get(key) == b"a"
    await client.delete(key)
    await move(slot, target, source)


async def test_a_key_of_a_slot_on_its_way_is_found(primaries: LocalCluster, client: Any) -> None:
    await client.initialize()
    source, target, _ = primaries.primaries
    key = key_on(client, source, "way")
    slot = client.keyslot(key)
    await target.ask("CLUSTER SETSLOT", slot, "IMPORTING", await source.id())
    await source.ask("CLUSTER SETSLOT", slot, "MIGRATING", await target.id())
    # The source has no such key, so the target takes it (ASK).
    assert await client.set(key, "a")
    assert await client.get(key) == b"a"
    assert client.node_of(key).port == source.port
    await client.delete(key)
    await move(slot, target, source)


async def test_streams_of_several_nodes_are_read_and_awaited_together(client: Any) -> None:
    after = {f"s{number}": "0-0" for number in range(8)}
    assert await read_streams(client, after, 10, 0.0) == []

    async def append() -> None:
        await client.xadd("s3", {"a": "1"}, id="1-0")

    found, _ = await asyncio.gather(read_streams(client, after, 10, 10.0), append())
    assert found == [[b"s3", [(b"1-0", {b"a": b"1"})]]]


async def test_short_reads_find_their_nodes(client: Any) -> None:
    for number in range(4):
        await client.hset(f"h{number}", "x", number)
    reads = RedisReader(client, "tests", 5.0)
    found = await reads.ask(*(("HGET", f"h{number}", "x") for number in range(4)))
    assert found == [b"0", b"1", b"2", b"3"]


async def test_the_keys_of_a_collection_are_removed_from_all_nodes(client: Any) -> None:
    for number in range(64):
        await client.set(f"nl:{{shop/{number:02d}}}:meta", 1)
        await client.set(f"nl:{{shop2/{number:02d}}}:meta", 1)
    assert await remove_keys(client, "shop") == 64
    assert await remove_keys(client, "shop2") == 64


async def test_the_weakest_primary_counts(primaries: LocalCluster, client: Any) -> None:
    assert set(await read_info(client, "memory")) == {
        f"127.0.0.1:{node.port}" for node in primaries.primaries
    }
    good = await read_persistence(client)
    assert (good.in_cluster, good.misaddressed, good.weakness) == (True, False, "")
    await primaries.primaries[1].ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(NotReady, match=r"set maxmemory-policy noeviction"):
            await Durability(client, 0).check()
    finally:
        await primaries.primaries[1].ask("CONFIG SET", "maxmemory-policy", "noeviction")


async def test_without_replicas_a_change_is_not_acknowledged_unless_that_is_set(
    client: Any,
) -> None:
    async def write(durability: Durability) -> None:
        async with client.pipeline(transaction=False) as pipe:
            pipe.set("a", "b")
            durability.check_reply((await durability.execute(pipe))[1])

    with pytest.raises(NotReady, match=r"0 of 1 replicas; .*--log-replicas 0"):
        await write(Durability(client, wait_s=0.1))
    await write(Durability(client, 0))


async def test_a_node_addressed_as_a_single_server_names_the_remedy(
    primaries: LocalCluster, client: Any
) -> None:
    await client.initialize()
    first, second, _ = primaries.primaries
    plain = connect(f"redis://127.0.0.1:{first.port}/0", retries=0)
    try:
        assert cluster_of(plain) is None
        with pytest.raises(NotReady, match=r"use redis\+cluster://HOST:PORT"):
            await Durability(plain).check()
        with pytest.raises(NotReady, match=r"MOVED .*use redis\+cluster://HOST:PORT"):
            async with translate_redis_errors():
                await plain.get(key_on(client, second))
    finally:
        await plain.aclose()


async def test_a_single_server_addressed_as_a_cluster_names_the_remedy(redis_url: str) -> None:
    client = connect(redis_url.replace("redis://", "redis+cluster://"), retries=0)
    try:
        with pytest.raises(NotReady, match=r"is no cluster.*use redis://HOST:PORT/0"):
            async with translate_redis_errors():
                await client.get("a")
    finally:
        await client.aclose()


async def test_without_quorum_the_remedy_is_named() -> None:
    async with local_cluster(node_timeout_ms=200) as cluster:
        client: Any = connect(cluster.url, timeout_s=5.0, retries=0)
        try:
            await client.get("a")
            for node in cluster.primaries[1:]:
                await node.kill()
            key = key_on(client, cluster.primaries[0])
            async with asyncio.timeout(20):
                while True:
                    try:
                        async with translate_redis_errors():
                            await client.get(key)
                    except NotReady as error:
                        assert "start the missing nodes" in error.message
                        break
                    await asyncio.sleep(0.02)
        finally:
            await client.aclose()
