"""Jobs, results and dead letters of a tenant do not exist for any other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

import pytest
import pytest_asyncio

from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.service import IngestService
from index_builder.ingest.servicer import IngestServicer
from nearline import contract as c
from nearline.access.caller import EVERY, Caller
from nearline.access.caller_file import CallerFile
from nearline.access.rights import Right
from nearline.clients import IngestClient
from nearline.errors import Conflict, NotFound, PermissionDenied
from nearline.serving import Registration, running
from nearline.v1 import ingest_pb2_grpc
from retrieval.redis_client.connection import connect
from tests.index_builder.ingest.submissions import ended, job_store_of, take_all, worker_of
from tests.metric_labels import label_values, naming
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
NAMES = ("a", "b", "operator", "elsewhere", "reader")


@dataclass
class Tenants:
    """Clients of one service by tenant; each of a and b has a job and a dead letter.

    jobs, letters: Their ids by tenant.
    """

    clients: dict[str, IngestClient]
    jobs: dict[str, str]
    letters: dict[str, str]


@pytest_asyncio.fixture(name="tenants")
async def give_tenants(shared_redis: str) -> AsyncIterator[Tenants]:
    callers = {
        "a": Caller("a", rights={EVERY: Right.WRITE}),
        "b": Caller("b", rights={EVERY: Right.WRITE}),
        # Of tenant a, without a right in the collection of its job, and with the right to read it.
        "elsewhere": Caller("a", rights={"products": Right.WRITE}),
        "reader": Caller("a", rights={"products": Right.WRITE, EVERY: Right.READ}),
        "operator": Caller(EVERY, rights={EVERY: Right.WRITE}),
    }
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(connect(shared_redis, timeout_s=10.0))
        await redis.flushall()
        service = IngestService(job_store_of(redis), LoadStatsReader(redis), 60.0)
        registration = Registration(
            "nearline.v1.IngestService",
            lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(
                IngestServicer(service), server
            ),
        )
        known = CallerFile({sha256(name.encode()).hexdigest(): callers[name] for name in NAMES})
        address = await stack.enter_async_context(running([registration], callers=known))
        clients = {
            name: await stack.enter_async_context(IngestClient(address, token=name))
            for name in NAMES
        }
        jobs: dict[str, str] = {}
        letters: dict[str, str] = {}
        for name in ("a", "b"):
            # No tenant is named: it is that of the credential.
            job = await clients[name].submit([c.SourceFile(f"{name}.md", b"secret")])
            assert job.tenant == name
            [unit] = await take_all(worker_of(redis))
            await worker_of(redis).settle([ended(unit, c.IngestOutcome.DEAD)])
            jobs[name] = job.job_id
            [letter] = (await clients[name].dead_letters()).letters
            letters[name] = letter.letter_id
        yield Tenants(clients, jobs, letters)


async def watched(client: IngestClient, job_id: str) -> None:
    async for _ in client.watch(job_id, timeout_s=10.0):
        return


BY_JOB: list[Callable[[IngestClient, str], Awaitable[object]]] = [
    lambda client, job_id: client.job(job_id),
    watched,
    lambda client, job_id: client.cancel(job_id),
    lambda client, job_id: client.results(job_id),
]


@pytest.mark.parametrize("call", BY_JOB, ids=["job", "watch", "cancel", "results"])
async def test_a_job_of_another_tenant_is_not_found(
    tenants: Tenants, call: Callable[[IngestClient, str], Awaitable[object]]
) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        await call(tenants.clients[name], tenants.jobs[name])
        await call(tenants.clients["operator"], f"tenant/{name}/{tenants.jobs[name]}")
        with pytest.raises(NotFound) as caught:
            await call(tenants.clients[name], tenants.jobs[other])
        with pytest.raises(NotFound) as missing:
            await call(tenants.clients[name], "none")
        # Nothing in the answer tells the two apart.
        assert caught.value.message.replace(tenants.jobs[other], "none") == missing.value.message


async def test_lists_have_what_is_the_callers_own(tenants: Tenants) -> None:
    for name, own in (("a", {"a"}), ("b", {"b"}), ("operator", {"a", "b"})):
        client = tenants.clients[name]
        assert {one.tenant for one in (await client.jobs()).jobs} == own
        letters = (await client.dead_letters(with_source=True)).letters
        assert {one.tenant for one in letters} == own
    assert (await tenants.clients["a"].dead_letters(job_id=tenants.jobs["b"])).letters == []
    for name in ("a", "b"):
        [letter] = (await tenants.clients[name].dead_letters(job_id=tenants.jobs[name])).letters
        assert letter.job_id == tenants.jobs[name]
    assert {one.tenant for one in (await tenants.clients["operator"].jobs(tenant="b")).jobs} == {
        "b"
    }


async def test_only_an_operator_names_another_tenant(tenants: Tenants) -> None:
    source = [c.SourceFile("x.md", b"x")]
    with pytest.raises(PermissionDenied, match="tenant 'b'"):
        await tenants.clients["a"].submit(source, tenant="b")
    with pytest.raises(PermissionDenied, match="tenant 'b'"):
        await tenants.clients["a"].jobs(tenant="b")
    with pytest.raises(PermissionDenied, match="tenant 'b'"):
        await tenants.clients["a"].dead_letters(tenant="b")
    assert (await tenants.clients["operator"].submit(source, tenant="b")).tenant == "b"
    # An operator's own job, which writes items of any tenant.
    assert (await tenants.clients["operator"].submit(source)).tenant == EVERY


async def test_letters_of_another_tenant_are_neither_requeued_nor_deleted(
    tenants: Tenants,
) -> None:
    client, own, other = tenants.clients["a"], tenants.letters["a"], tenants.letters["b"]
    with pytest.raises(NotFound):
        await client.requeue([other])
    with pytest.raises(NotFound):
        await client.requeue([own, other])
    assert await client.delete_dead_letters([other]) == 0
    assert await client.delete_dead_letters([own, other]) == 1
    assert len((await tenants.clients["b"].dead_letters()).letters) == 1
    assert (await tenants.clients["b"].requeue([other])).tenant == "b"


async def test_two_tenants_may_use_the_same_job_id(tenants: Tenants) -> None:
    source = [c.SourceFile("x.md", b"x")]
    client, taken = tenants.clients["a"], tenants.jobs["b"]
    # As with an id that is free: there is no such job yet.
    said = []
    for job_id in (taken, "free"):
        with pytest.raises(Conflict) as caught:
            await client.submit(source, job_id=job_id, offset=1)
        said.append(caught.value.message.replace(job_id, "it"))
    assert said[0] == said[1]
    assert (await client.submit(source, job_id=taken, more=True)).job_id == taken
    assert (await client.submit(source, job_id=taken, offset=1)).sources == 2
    assert {one.tenant for one in (await client.jobs()).jobs if one.job_id == taken} == {"a"}
    assert (await tenants.clients["b"].job(taken)).sources == 1
    [letter] = (await client.dead_letters()).letters
    assert (await client.requeue([letter.letter_id], job_id="again")).job_id == "again"
    assert (await client.cancel("again")).job_id == "again"
    assert (await tenants.clients["operator"].job("tenant/a/again")).tenant == "a"


async def test_a_job_whose_id_holds_no_tenant_is_found_by_its_tenant(tenants: Tenants) -> None:
    source = [c.SourceFile("x.md", b"x")]
    # As release 0.2.0 stored every job.
    await tenants.clients["operator"].submit(source, tenant="a", job_id="old", more=True)
    client = tenants.clients["a"]
    assert (await client.submit(source, job_id="old", offset=1)).sources == 2
    for call in BY_JOB:
        await call(client, "old")
        with pytest.raises(NotFound):
            await call(tenants.clients["b"], "old")
    assert "old" in {one.job_id for one in (await client.jobs()).jobs}


async def test_a_right_in_another_collection_opens_no_job_and_no_letter(tenants: Tenants) -> None:
    client, job, letter = tenants.clients["elsewhere"], tenants.jobs["a"], tenants.letters["a"]
    for call in BY_JOB:
        with pytest.raises(NotFound):
            await call(client, job)
    assert (await client.jobs()).jobs == []
    assert (await client.dead_letters(with_source=True)).letters == []
    with pytest.raises(NotFound):
        await client.requeue([letter])
    assert await client.delete_dead_letters([letter]) == 0


async def test_a_right_to_read_changes_no_job_and_no_letter(tenants: Tenants) -> None:
    client, job, letter = tenants.clients["reader"], tenants.jobs["a"], tenants.letters["a"]
    assert (await client.job(job)).job_id == job
    assert [one.letter_id for one in (await client.dead_letters()).letters] == [letter]
    with pytest.raises(PermissionDenied, match="'write'"):
        await client.cancel(job)
    with pytest.raises(NotFound):
        await client.requeue([letter])
    assert await client.delete_dead_letters([letter]) == 0


async def test_no_metric_tells_who_submitted_what(tenants: Tenants) -> None:
    source = c.SourceFile("Quinn.md", b"Quinn")
    for name in ("a", "b", "operator"):
        client = tenants.clients[name]
        await client.submit([source], job_id=f"Quinn-{name}", callback_id="Quinn")
    found = label_values()
    assert "Submit" in found
    assert naming(found, {"Quinn", *tenants.jobs.values(), *tenants.letters.values()}) == set()
    assert found.isdisjoint(NAMES)
