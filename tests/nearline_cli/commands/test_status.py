"""`nearline status` and `doctor` show Redis and the disks, with the remedy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nearline import Item, RetrievalClient
from nearline.contract import WriteOutcome
from nearline.errors import FeedBlocked
from nearline.serving import Registration, running
from nearline.v1 import admin_pb2, admin_pb2_grpc
from nearline_cli.commands import doctor, status
from nearline_cli.local import disk, machine_checks
from nearline_cli.local.machine_checks import (
    AWAY,
    FAILING,
    FULL,
    OK,
    SERVING,
    disk_states,
    redis_state,
)
from nearline_cli.local.processes import free_port, retrieval_process
from retrieval.redis_client.connection import connect
from retrieval.router.admin_servicer import AdminServicer
from tests.nearline.doors import Behind, front
from tests.nearline.test_forwarded_health import SERVING as SERVING_HEALTH, health_is
from tests.nearline_cli.conftest import Run
from tests.redis_server import needs_redis, valkey

pytestmark = pytest.mark.service
AWAY_SERVICES = ("--address", "127.0.0.1:1", "--embedding", "", "--ingest", "", "--generation", "")


def records(nearline: Run, *words: str) -> tuple[dict[str, dict[str, str]], str]:
    done = nearline(*words, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row.get("service") or row.get("check"): row for row in rows}, done.stderr


@needs_redis
async def test_a_redis_that_serves_evicts_is_full_or_away_is_shown(
    nearline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("status", *AWAY_SERVICES, "--store", str(tmp_path / "nowhere"))
    async with valkey() as url:
        shown, _ = records(nearline, *where, "--redis", url)
        assert shown["redis"]["state"] == SERVING
        assert shown["redis"]["about"].startswith("Redis ")
        # Its folder is on this machine.
        assert shown["disk"]["state"] == OK
        async with connect(url, timeout_s=10.0) as client:
            await client.config_set("maxmemory-policy", "volatile-lru")
            shown, error = records(nearline, *where, "--redis", url)
            assert shown["redis"]["state"] == FAILING
            assert "redis: its maxmemory-policy is volatile-lru" in error
            assert "set maxmemory-policy noeviction" in error
            found, _ = records(nearline, "doctor", "--port", "0", "--redis", url)
            assert (found["redis"]["verdict"], found["change log"]["verdict"]) == ("fail", "fail")
            assert found["redis"]["remedy"] == "set maxmemory-policy noeviction"
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", "1mb")
        shown, error = records(nearline, *where, "--redis", url)
        assert shown["redis"]["state"] == FULL
        assert "nearline letters list" in shown["redis"]["about"]
        assert "redis: " in error and "so it refuses writes; remove dead letters" in error
        assert "retrieval (127.0.0.1:1)" in error
        found, _ = records(nearline, "doctor", "--port", "0", "--redis", url)
        assert found["redis"]["verdict"] == "fail"
        assert "remove dead letters" in found["redis"]["remedy"]
        # The one of a running `nearline up` needs no name.
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        monkeypatch.setattr(doctor, "run_by_up", lambda owned: owned == port)
        found, _ = records(nearline, "doctor", "--port", str(port - 4))
        assert found["redis"]["verdict"] == "fail"
    shown, error = records(nearline, *where, "--redis", url)
    assert shown["redis"]["state"] == AWAY
    assert "redis (127.0.0.1:" in error


@needs_redis
async def test_a_router_refuses_upserts_while_redis_is_nearly_full_and_says_so(
    nearline: Run, store: Path
) -> None:
    changed = Item(id="d07", text="changed", vector=np.ones(32, np.float32))
    async with (
        valkey() as url,
        connect(url, timeout_s=10.0) as redis,
        retrieval_process(store, ["--redis", url]) as router,
        RetrievalClient(router.address) as client,
    ):
        where = ("status", "--address", router.address, *AWAY_SERVICES[2:], "--store", str(store))

        async def blocked_is(expected: bool) -> None:
            # The router measures once a second.
            async with asyncio.timeout(30):
                while True:
                    try:
                        await client.upsert_items([changed], timeout_s=10.0)
                        found = False
                    except FeedBlocked:
                        found = True
                    if found == expected:
                        return

        await blocked_is(False)
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", int(used / 0.9))
        await blocked_is(True)
        shown, error = records(nearline, *where)
        assert shown["retrieval"]["state"] == FULL
        assert "upserts are refused, deletes are not: Redis has" in error
        assert "--feed-block-redis 0.85): compact" in error
        resources = cast(list[dict[str, str]], shown["retrieval"]["resources"])
        assert {one["resource"] for one in resources} == {"redis", "disk", "memory"}
        assert [one["resource"] for one in resources if one["problem"]] == ["redis"]
        gone = await client.delete_items(["d07"], timeout_s=10.0)
        assert gone.results[0].outcome is WriteOutcome.DELETED
        await redis.config_set("maxmemory", 512 << 20)
        await blocked_is(False)
        shown, _ = records(nearline, *where)
        assert shown["retrieval"]["state"] == SERVING


@needs_redis
async def test_a_password_is_not_shown() -> None:
    state = await redis_state("redis://:secret@127.0.0.1:1/0")
    assert (state.address, state.state) == ("127.0.0.1:1", AWAY)
    assert "secret" not in state.about


def test_a_failed_write_is_named() -> None:
    state, about = machine_checks._judge({"aof_last_write_status": "err"})
    assert state == FAILING and "make room on its disk" in about


def test_a_full_disk_is_shown_once_with_the_remedy(
    nearline: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".redis").mkdir()
    folders = [tmp_path, tmp_path / ".redis", tmp_path / "missing"]
    (state,) = disk_states(folders)
    assert (state.state, "GiB are free" in state.about) == (OK, True)
    monkeypatch.setattr(disk, "LOW_BYTES", 1 << 62)
    (state,) = disk_states(folders)
    assert state.state == FULL and "nearline snapshots prune" in state.about
    shown, error = records(nearline, "status", *AWAY_SERVICES, "--store", str(tmp_path))
    assert shown["disk"]["state"] == FULL
    assert f"start it: nearline up. the disk of {tmp_path} is full" in error
    found, _ = records(nearline, "doctor", "--port", "0", "--store", str(tmp_path))
    assert found["disk"]["verdict"] == "fail"
    assert found["disk"]["remedy"].startswith("Remove files")


async def test_a_router_whose_tenants_are_not_told_apart_says_so() -> None:
    warning = "nobody is told apart"
    none = cast(Any, SimpleNamespace(in_force=[]))
    servicer = AdminServicer(cast(Any, None), none, {}, none, none, none, none, warning)
    service = Registration(
        "nearline.v1.AdminService",
        lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server),
    )
    async with running([service]) as address:
        (shown,), _ = await status._ask(address, "", False)
    assert shown["state"] == SERVING and str(shown["about"]).endswith(warning)


async def test_services_that_are_not_beside_their_router_are_asked_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "answers", lambda host, port: port in (7700, 7705))
    assert status._door("127.0.0.1:7700", "ingest") == "127.0.0.1:7705"
    assert status._door("127.0.0.1:7700", "embedding") == "127.0.0.1:7700"
    assert status._door("shop.example:7700", "ingest") == "shop.example:7700"
    async with running(Behind().registrations) as behind, front(behind) as address:
        await health_is(address, "nearline.v1.GenerationService", SERVING_HEALTH)
        (found,) = await asyncio.to_thread(status._generation, address, address, False)
        assert (found["service"], found["state"]) == ("generation", SERVING)
        # It has no queue, so none was wanted.
        assert await status._ask_queue(address, address, False) == []


async def test_a_service_that_its_router_was_given_is_missed_when_it_is_away() -> None:
    away = f"127.0.0.1:{free_port()}"
    async with front(away, ingest=away) as address:
        (found,) = await asyncio.to_thread(status._generation, address, address, False)
        assert (found["service"], found["state"]) == ("generation", FAILING)
        (found,) = await status._ask_queue(address, address, False)
        assert (found["service"], found["state"]) == ("ingest", FAILING)
        assert away in str(found["about"])
        # One that is not beside the router, or is frozen, belongs to it as well.
        (found,) = await asyncio.to_thread(status._generation, address, away, False)
        assert (found["address"], found["state"]) == (away, AWAY)
        (found,) = await status._ask_queue(address, away, False)
        assert (found["address"], found["state"]) == (away, AWAY)


class Answering(admin_pb2_grpc.AdminServiceServicer):
    """A router that gives one reply."""

    def __init__(self, reply: admin_pb2.GetServingStatusResponse) -> None:
        self.reply = reply

    async def GetServingStatus(
        self, request: admin_pb2.GetServingStatusRequest, context: object
    ) -> admin_pb2.GetServingStatusResponse:
        return self.reply


async def test_a_service_that_the_router_does_not_use_is_not_missing(
    nearline: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The settings name a Redis, but `up --no-redis` overrides them.
    monkeypatch.setenv("NEARLINE_RETRIEVAL_REDIS", "redis://127.0.0.1:1/0")
    own_vectors = admin_pb2.CollectionStatus(collection="docs", epoch=1)
    with_model = admin_pb2.CollectionStatus(collection="texts", epoch=1, fingerprint="model/1")
    not_loaded = admin_pb2.CollectionStatus(collection="new", newest_epoch=1)
    disk = admin_pb2.WatchedResource(name="disk", free_bytes=1, total_bytes=2)
    servicer = Answering(admin_pb2.GetServingStatusResponse())
    service = Registration(
        "nearline.v1.AdminService",
        lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server),
    )
    async with running([service]) as address:
        where = ("status", "--address", address, "--generation", "", "--ingest", "")

        async def states(
            *collections: admin_pb2.CollectionStatus,
            resources: Sequence[admin_pb2.WatchedResource] = (),
            words: Sequence[str] = (),
        ) -> tuple[str | None, str | None, str]:
            """Returns the states of embedding and Redis, if they are listed, and the error."""
            servicer.reply = admin_pb2.GetServingStatusResponse(
                collections=collections, resources=resources
            )
            at = (*where, "--store", str(tmp_path), *words)
            shown, error = await asyncio.to_thread(records, nearline, *at)
            found = [shown.get(name, {}).get("state") for name in ("embedding", "redis")]
            return found[0], found[1], error

        assert await states(own_vectors) == (None, None, "")
        *found, error = await states(with_model, resources=[disk])
        assert found == [AWAY, AWAY] and "embedding (127.0.0.1:" in error
        assert "redis (127.0.0.1:1)" in error
        # An unknown model may need it, and what an option names is missing.
        assert (await states(own_vectors, not_loaded))[0] == AWAY
        named = ("--embedding", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1/0")
        assert (await states(own_vectors, words=named))[:2] == (AWAY, AWAY)
