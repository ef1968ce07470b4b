"""Submissions to collections that do not exist are refused; a router that is away refuses none."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nearline import contract as c
from nearline.clients import AdminClient, IngestClient
from nearline.errors import NotFound
from nearline_cli.local.processes import ingest_process
from tests.index_builder.ingest.conftest import IdleService
from tests.index_builder.ingest.queue_processes import DIM, QueueProcesses
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
FILE = c.SourceFile("a.md", b"text")


@pytest_asyncio.fixture(name="admin")
async def give_admin(queue_processes: QueueProcesses) -> AsyncIterator[AdminClient]:
    async with AdminClient(queue_processes.retrieval) as client:
        yield client


async def ended(client: IngestClient, job: c.Job) -> c.Job:
    async for seen in client.watch(job.job_id, timeout_s=60.0):
        job = seen
    return job


async def test_an_unknown_collection_is_refused_with_the_closest_names(
    ingest_client: IngestClient,
) -> None:
    with pytest.raises(NotFound, match="closest names are: 'texts', 'default'") as caught:
        await ingest_client.submit([FILE], collection="text")
    assert caught.value.field == "collection"
    assert not (await ingest_client.jobs(collection="text")).jobs


async def test_a_collection_is_known_once_it_exists_and_by_its_second_name(
    ingest_client: IngestClient, admin: AdminClient
) -> None:
    name = f"new-{secrets.token_hex(4)}"
    item = c.Item(id="a", text="x", vector=[1.0] * DIM)
    with pytest.raises(NotFound):
        await ingest_client.submit([item], collection=name)
    await admin.create_collection(name, dim=DIM)
    await admin.set_collection_name(f"{name}-2", name)
    for known in (name, f"{name}-2"):
        job = await ingest_client.submit([item], collection=known)
        assert (await ended(ingest_client, job)).state is c.JobState.SUCCEEDED
    # Other tests know which collections there are.
    await admin.drop_collection(name)


async def test_letters_of_a_dropped_collection_are_not_requeued(
    ingest_client: IngestClient, admin: AdminClient, queue_processes: QueueProcesses
) -> None:
    name = f"old-{secrets.token_hex(4)}"
    await admin.create_collection(name, dim=DIM)
    job = await ended(ingest_client, await ingest_client.submit([FILE], collection=name))
    assert job.dead == 1
    [letter] = (await ingest_client.dead_letters(job_id=job.job_id)).letters
    await admin.drop_collection(name)
    # Another service, since this one knows the collection for ten seconds.
    words = ("--retrieval", queue_processes.retrieval)
    async with (
        ingest_process(queue_processes.redis, words) as process,
        IngestClient(process.address) as other,
    ):
        with pytest.raises(NotFound, match=f"collection '{name}' does not exist"):
            await other.requeue([letter.letter_id])
        assert (await other.dead_letters(job_id=job.job_id)).letters
    await ingest_client.delete_dead_letters([letter.letter_id])


async def test_every_submission_is_accepted_while_the_router_is_away(
    idle_service: IdleService,
) -> None:
    async with idle_service("--retrieval", "127.0.0.1:1") as client:
        for job_id in ("first", "second"):
            job = await client.submit([FILE], collection="any", job_id=job_id)
            assert (job.collection, job.left) == ("any", 1)
