"""Every call of the service over gRPC, with a real queue and a real worker."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import IngestClient, RetrievalClient
from nearline.clients.blocking import BlockingIngestClient
from nearline.errors import NotFound
from tests.index_builder.ingest.queue_processes import DIM, QueueProcesses
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
VECTORS = np.eye(DIM, dtype=np.float32)


def unique() -> str:
    """Returns a name unique among all tests."""
    return f"n{secrets.token_hex(6)}"


def items(prefix: str, count: int) -> list[c.Item]:
    return [c.Item(id=f"{prefix}-{n}", text=f"{n}", vector=VECTORS[n % DIM]) for n in range(count)]


async def end_of(client: IngestClient, job_id: str) -> c.Job:
    """Waits for the end of a job."""
    async for job in client.watch(job_id, timeout_s=60.0):
        last = job
    assert last.ended
    return last


async def test_requeueing_with_a_job_id_is_idempotent(ingest_client: IngestClient) -> None:
    tenant, name = unique(), unique()
    job = await ingest_client.submit([c.Item(id=name, text="no vector")], tenant=tenant)
    await end_of(ingest_client, job.job_id)
    [letter] = (await ingest_client.dead_letters(tenant=tenant)).letters
    first = await ingest_client.requeue([letter.letter_id], job_id=name)
    # The reply was lost, and the request is repeated.
    again = await ingest_client.requeue([letter.letter_id], job_id=name)
    assert (first.job_id, again.job_id, again.sources) == (name, name, 1)
    await end_of(ingest_client, name)
    assert len((await ingest_client.jobs(tenant=tenant)).jobs) == 2
    with pytest.raises(NotFound):
        await ingest_client.requeue([letter.letter_id])


async def test_a_job_is_watched_to_its_end_and_its_documents_are_searchable(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    tenant, name = unique(), unique()
    sources: list[c.IngestSource] = [*items(name, 120), c.Item(id=f"{name}-bad", text="no vector")]
    job = await ingest_client.submit(
        sources,
        tenant=tenant,
        priority=c.JobPriority.HIGH,
        callback_id="call me",
        job_id=name,
        result_ttl_s=3_600.0,
    )
    assert (job.sources, job.documents, job.open) == (121, 121, False)
    seen = [one async for one in ingest_client.watch(name, timeout_s=60.0)]
    states = [one.state for one in seen]
    assert set(states[:-1]) <= {c.JobState.QUEUED, c.JobState.RUNNING}
    assert [one.left for one in seen] == sorted((one.left for one in seen), reverse=True)
    job = seen[-1]
    assert job == await ingest_client.job(name)
    assert job.state is c.JobState.PARTLY_FAILED
    assert (job.indexed, job.superseded, job.dead, job.cancelled, job.left) == (120, 0, 1, 0, 0)
    assert (job.tenant, job.priority, job.callback_id) == (
        *(tenant, c.JobPriority.HIGH),
        "call me",
    )
    assert job.finish_time is not None and job.expire_time is not None
    assert abs(job.expire_time - job.finish_time - timedelta(hours=1)) < timedelta(seconds=1)
    async with RetrievalClient(queue_processes.retrieval) as client:
        ids = [one.id for one in items(name, 120)]
        read = await client.get_items(ids, min_watermark=job.watermark)
    assert [one.id for one in read.items] == ids
    page = await ingest_client.results(name, page_size=50)
    pages = [page]
    while page.token:
        page = await ingest_client.results(name, page_size=50, token=page.token)
        pages.append(page)
    assert [len(one.results) for one in pages] == [50, 50, 21]
    results = [one for part in pages for one in part.results]
    assert [one.place for one in results] == list(range(121))
    assert [one.document_id for one in results] == [*ids, f"{name}-bad"]
    assert {one.outcome for one in results[:-1]} == {c.IngestOutcome.INDEXED}
    assert [one.version for one in results[:-1]] == [one.version for one in read.items]
    last = results[-1]
    assert (last.outcome, last.reason, last.attempts) == (
        c.IngestOutcome.DEAD,
        "INVALID_REQUEST",
        1,
    )


async def test_the_last_submission_of_an_id_is_served(
    ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    name = unique()
    versions = [c.Item(id=name, text=f"version {n}", vector=VECTORS[n % DIM]) for n in range(10)]
    job = await end_of(ingest_client, (await ingest_client.submit(versions)).job_id)
    assert job.state is c.JobState.SUCCEEDED
    assert job.indexed >= 1 and job.indexed + job.superseded == 10
    async with RetrievalClient(queue_processes.retrieval) as client:
        read = await client.get_items([name], min_watermark=job.watermark)
    assert [one.text for one in read.items] == ["version 9"]


async def test_dead_letters_are_listed_requeued_and_deleted(ingest_client: IngestClient) -> None:
    tenant, name = unique(), unique()
    sources = [c.Item(id=f"{name}-{n}", text="no vector") for n in range(3)]
    job = await end_of(
        ingest_client, (await ingest_client.submit(sources, tenant=tenant, callback_id="cb")).job_id
    )
    assert (job.state, job.dead) == (c.JobState.FAILED, 3)
    page = await ingest_client.dead_letters(tenant=tenant, page_size=2, with_source=True)
    rest = await ingest_client.dead_letters(tenant=tenant, page_size=2, token=page.token)
    assert [one.source for one in page.letters] == sources[:2]
    assert [one.source for one in rest.letters] == [None]
    letters = [*page.letters, *rest.letters]
    assert [(one.job_id, one.tenant, one.collection) for one in letters] == (
        [(job.job_id, tenant, "default")] * 3
    )
    assert all("has no model; send a vector" in one.result.message for one in letters)
    assert not (
        await ingest_client.dead_letters(tenant=tenant, token=letters[-1].letter_id)
    ).letters
    assert len((await ingest_client.dead_letters(job_id=job.job_id)).letters) == 3
    assert not (await ingest_client.dead_letters(tenant=tenant, job_id="another")).letters
    ids = [one.letter_id for one in letters]
    with pytest.raises(NotFound, match="none was requeued"):
        await ingest_client.requeue([*ids, "1-1"])
    again = await end_of(ingest_client, (await ingest_client.requeue(ids[:2])).job_id)
    assert (again.tenant, again.callback_id, again.documents, again.dead) == (tenant, "cb", 2, 2)
    found = (await ingest_client.dead_letters(tenant=tenant)).letters
    assert {one.job_id for one in found} == {job.job_id, again.job_id} and len(found) == 3
    assert await ingest_client.delete_dead_letters([one.letter_id for one in found]) == 3
    assert await ingest_client.delete_dead_letters([one.letter_id for one in found]) == 0
    assert not (await ingest_client.dead_letters(tenant=tenant)).letters


async def test_jobs_are_listed_newest_first_by_page_and_filter(ingest_client: IngestClient) -> None:
    tenant, name = unique(), unique()
    made = []
    for number in range(5):
        one = await ingest_client.submit(
            items(name, 1) if number % 2 else [c.Item(id=name, text="no vector")],
            tenant=tenant,
            callback_id=f"call {number}",
        )
        made.append(await end_of(ingest_client, one.job_id))
    newest = [one.job_id for one in reversed(made)]
    whole = await ingest_client.jobs(tenant=tenant)
    assert ([one.job_id for one in whole.jobs], whole.token) == (newest, "")
    assert list(whole.jobs) == made[::-1]
    first = await ingest_client.jobs(tenant=tenant, page_size=3)
    second = await ingest_client.jobs(tenant=tenant, page_size=3, token=first.token)
    assert [one.job_id for one in (*first.jobs, *second.jobs)] == newest
    failed = await ingest_client.jobs(tenant=tenant, states={c.JobState.FAILED})
    assert [one.job_id for one in failed.jobs] == newest[::2]
    either = {c.JobState.FAILED, c.JobState.SUCCEEDED}
    assert len((await ingest_client.jobs(tenant=tenant, states=either)).jobs) == 5
    named = await ingest_client.jobs(callback_id="call 3", tenant=tenant, collection="default")
    assert [one.job_id for one in named.jobs] == [made[3].job_id]
    assert not (await ingest_client.jobs(tenant=tenant, collection="other")).jobs


async def test_an_open_job_grows_and_requests_are_idempotent(ingest_client: IngestClient) -> None:
    name, sources = unique(), items(unique(), 30)
    for _ in range(2):
        job = await ingest_client.submit(sources[:10], job_id=name, more=True)
        assert (job.sources, job.open) == (10, True)
    # The job already has the first part and none of the rest.
    for _ in range(2):
        job = await ingest_client.submit(sources[10:], job_id=name, offset=10, more=True)
        assert (job.sources, job.documents, job.open) == (30, 30, True)
    # Only the repeated last request says that it was the last.
    job = await ingest_client.submit(sources[29:], job_id=name, offset=29)
    assert not job.open
    job = await end_of(ingest_client, name)
    assert (job.state, job.indexed, job.sources) == (c.JobState.SUCCEEDED, 30, 30)


async def test_a_job_finishes_when_its_last_request_is_repeated_as_final(
    ingest_client: IngestClient,
) -> None:
    name, sources = unique(), items(unique(), 2)
    await ingest_client.submit(sources, job_id=name, more=True)
    async for job in ingest_client.watch(name, timeout_s=60.0):
        if job.open and not job.left:
            assert (job.state, job.ended) == (c.JobState.RUNNING, False)
            closed = await ingest_client.submit(sources, job_id=name)
            assert (closed.state, closed.indexed, closed.ended) == (c.JobState.SUCCEEDED, 2, True)
    assert job == closed


async def test_the_state_of_the_queue_is_reported(ingest_client: IngestClient) -> None:
    state = await ingest_client.queue()
    (worker,) = state.workers
    assert worker.worker_id and worker.documents_per_s >= 0
    assert state.documents_per_s == worker.documents_per_s
    assert state.lag == state.waiting + state.in_hand + state.delayed


async def test_results_expire(ingest_client: IngestClient) -> None:
    name = unique()
    await ingest_client.submit(items(name, 1), job_id=name, result_ttl_s=1.0)
    job = await end_of(ingest_client, name)
    assert job.expire_time is not None and job.finish_time is not None
    assert job.expire_time - job.finish_time <= timedelta(seconds=1)
    # Polls every few milliseconds; the reply changes once.
    for _ in range(100_000):
        try:
            await ingest_client.results(name)
        except NotFound:
            break
    else:
        raise AssertionError("the results are still there")
    with pytest.raises(NotFound, match="may have expired"):
        await ingest_client.job(name)
    assert name not in {one.job_id for one in (await ingest_client.jobs()).jobs}


async def test_a_blocking_client_does_the_same(queue_processes: QueueProcesses) -> None:
    name = unique()

    def work() -> tuple[c.Job, c.Job, c.ResultPage]:
        with BlockingIngestClient(queue_processes.ingest) as client:
            client.submit(items(name, 2), job_id=name, more=True)
            client.submit(items(name, 3)[2:], job_id=name, offset=2)
            job = client.wait(name, timeout_s=60.0)
            assert client.cancel(name) == client.job(name) == job
            return job, client.job(name), client.results(name, page_size=2)

    job, same, page = await asyncio.to_thread(work)
    assert (job, job.indexed, job.state) == (same, 3, c.JobState.SUCCEEDED)
    assert [one.document_id for one in page.results] == [f"{name}-0", f"{name}-1"]
    assert page.token == "2"
