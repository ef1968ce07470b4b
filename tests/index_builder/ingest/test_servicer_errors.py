"""Errors of the service: status, field and retry time."""

from __future__ import annotations

import secrets
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from nearline import contract as c, status
from nearline.clients import IngestClient
from nearline.errors import Conflict, InvalidRequest, NotReady, Overloaded
from nearline.v1 import ingest_pb2 as pb, ingest_pb2_grpc, retrieval_pb2
from nearline_cli.local.processes import ingest_process, redis_process
from tests.index_builder.ingest.conftest import IdleService
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
ITEM = pb.IngestSource(item=retrieval_pb2.Item(id="a", text="a"))
LETTER = "1-1"


def submit(*sources: pb.IngestSource, **fields: object) -> pb.SubmitRequest:
    return pb.SubmitRequest(sources=sources or [ITEM], **fields)  # type: ignore[arg-type]


def file(name: str, size: int = 1) -> pb.IngestSource:
    return pb.IngestSource(file=pb.SourceFile(name=name, content=b"x" * size))


def url(address: str) -> pb.IngestSource:
    return pb.IngestSource(url=address)


MISTAKES: list[tuple[str, Message, str]] = [
    ("Submit", pb.SubmitRequest(), "sources"),
    ("Submit", submit(*[ITEM] * 1_025), "sources"),
    ("Submit", submit(pb.IngestSource()), "sources[0]"),
    ("Submit", submit(ITEM, file("a.exe")), "sources[1].file.name"),
    ("Submit", submit(file(f"{'a' * 600}.md")), "sources[0].file.name"),
    ("Submit", submit(file("a.md", c.MAX_FILE_BYTES + 1)), "sources[0].file.content"),
    ("Submit", submit(url("ftp://host/a.md")), "sources[0].url"),
    ("Submit", submit(url("https://host/a.exe")), "sources[0].url"),
    ("Submit", submit(url("https://[host/a.md")), "sources[0].url"),
    ("Submit", submit(url(f"https://host/{'a' * 5_000}.md")), "sources[0].url"),
    ("Submit", submit(collection="a/b"), "collection"),
    ("Submit", submit(collection="c" * 64), "collection"),
    ("Submit", submit(tenant="t" * 129), "tenant"),
    ("Submit", submit(tenant=" "), "tenant"),
    ("Submit", submit(callback_id="t" * 513), "callback_id"),
    ("Submit", submit(job_id="a b"), "job_id"),
    ("Submit", submit(job_id="a" * 65), "job_id"),
    ("Submit", submit(priority=99), "priority"),
    ("Submit", submit(result_ttl=Duration(nanos=1)), "result_ttl"),
    ("Submit", submit(result_ttl=Duration(seconds=31 * 86_400)), "result_ttl"),
    ("Submit", submit(result_ttl=Duration(seconds=-1)), "result_ttl"),
    ("GetJob", pb.GetJobRequest(), "job_id"),
    ("GetJob", pb.GetJobRequest(job_id="ä"), "job_id"),
    ("WatchJob", pb.WatchJobRequest(job_id="a/b"), "job_id"),
    ("CancelJob", pb.CancelJobRequest(job_id=""), "job_id"),
    ("ListResults", pb.ListResultsRequest(job_id="?"), "job_id"),
    ("ListResults", pb.ListResultsRequest(job_id="a", page_size=1_001), "page_size"),
    ("ListResults", pb.ListResultsRequest(job_id="a", page_token="-1"), "page_token"),
    ("ListJobs", pb.ListJobsRequest(states=[99]), "states"),  # type: ignore[list-item]
    ("ListJobs", pb.ListJobsRequest(page_size=1_001), "page_size"),
    ("ListJobs", pb.ListJobsRequest(page_token="next"), "page_token"),
    ("ListJobs", pb.ListJobsRequest(page_token="9" * 20), "page_token"),
    ("ListDeadLetters", pb.ListDeadLettersRequest(page_size=1_001), "page_size"),
    ("ListDeadLetters", pb.ListDeadLettersRequest(page_token="1"), "page_token"),
    ("ListDeadLetters", pb.ListDeadLettersRequest(page_token=f"{'9' * 20}-1"), "page_token"),
    ("RequeueDeadLetters", pb.RequeueDeadLettersRequest(), "letter_ids"),
    ("RequeueDeadLetters", pb.RequeueDeadLettersRequest(letter_ids=["x"]), "letter_ids"),
    ("RequeueDeadLetters", pb.RequeueDeadLettersRequest(letter_ids=[LETTER] * 2), "letter_ids"),
    ("DeleteDeadLetters", pb.DeleteDeadLettersRequest(), "letter_ids"),
    ("DeleteDeadLetters", pb.DeleteDeadLettersRequest(letter_ids=["1-"]), "letter_ids"),
    ("DeleteDeadLetters", pb.DeleteDeadLettersRequest(letter_ids=[f"1-{9**30}"]), "letter_ids"),
]
MISSING: list[tuple[str, Message]] = [
    ("GetJob", pb.GetJobRequest(job_id="nobody")),
    ("WatchJob", pb.WatchJobRequest(job_id="nobody")),
    ("CancelJob", pb.CancelJobRequest(job_id="nobody")),
    ("ListResults", pb.ListResultsRequest(job_id="nobody")),
    ("RequeueDeadLetters", pb.RequeueDeadLettersRequest(letter_ids=[LETTER])),
]


async def refusal(client: IngestClient, method: str, request: Message) -> grpc.aio.AioRpcError:
    """Makes a call that must fail; returns its error."""
    # The client's own channel would retry.
    async with grpc.aio.insecure_channel(client.address) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            call = getattr(stub, method)(request, timeout=20.0)
            if method == "WatchJob":
                async for _ in call:
                    pass
            else:
                await call
    return caught.value


async def test_invalid_requests_are_refused_and_name_the_field(ingest_client: IngestClient) -> None:
    for method, request, field in MISTAKES:
        error = await refusal(ingest_client, method, request)
        ours = status.from_rpc_error(error, "")
        shown = (method, error.code().name, ours.reason, ours.field)
        assert shown == (method, "INVALID_ARGUMENT", "INVALID_REQUEST", field), ours.message


async def test_missing_jobs_and_letters_are_not_found(ingest_client: IngestClient) -> None:
    for method, request in MISSING:
        error = await refusal(ingest_client, method, request)
        assert error.code() is grpc.StatusCode.NOT_FOUND, method
        details = error.details() or ""
        assert "nearline jobs" in details or "nearline letters" in details


async def test_a_job_accepts_only_its_next_sources_with_equal_parameters(
    ingest_client: IngestClient,
) -> None:
    name, items = f"n{secrets.token_hex(6)}", [c.Item(id="x", text="no vector")]
    with pytest.raises(Conflict, match="has 0 sources, but offset is 5; continue at offset 0"):
        await ingest_client.submit(items, job_id=name, offset=5)
    await ingest_client.submit(items * 3, job_id=name, tenant="mine", more=True)
    for offset in (2, 4):
        with pytest.raises(Conflict, match=f"has 3 sources, but offset is {offset}; .* offset 3"):
            await ingest_client.submit(items * 2, job_id=name, tenant="mine", offset=offset)
    for terms in (
        {"tenant": "yours"},
        {"tenant": "mine", "collection": "texts"},
        {"tenant": "mine", "priority": c.JobPriority.LOW},
    ):
        with pytest.raises(Conflict, match="a different tenant, collection or priority"):
            await ingest_client.submit(items, job_id=name, offset=3, **terms)
    await ingest_client.submit(items, job_id=name, tenant="mine", offset=3)
    with pytest.raises(Conflict, match="is closed for more sources"):
        await ingest_client.submit(items, job_id=name, tenant="mine", offset=4)
    with pytest.raises(InvalidRequest, match="half a surrogate"):
        await ingest_client.submit([c.SourceFile("\ud800.md", b"")])
    with pytest.raises(InvalidRequest, match="offset is -1"):
        await ingest_client.submit(items, offset=-1)


async def test_letters_of_two_tenants_are_not_requeued_together(
    ingest_client: IngestClient,
) -> None:
    tenants = [f"n{secrets.token_hex(6)}" for _ in range(2)]
    letters: list[c.DeadLetter] = []
    for tenant in tenants:
        job = await ingest_client.submit([c.Item(id="x", text="no vector")], tenant=tenant)
        async for seen in ingest_client.watch(job.job_id, timeout_s=60.0):
            job = seen
        assert job.dead == 1
        letters += (await ingest_client.dead_letters(tenant=tenant)).letters
    ids = [one.letter_id for one in letters]
    with pytest.raises(InvalidRequest, match="a different collection or tenant") as caught:
        await ingest_client.requeue(ids)
    assert caught.value.field == "letter_ids"
    assert [
        one.letter_id for one in (await ingest_client.dead_letters(tenant=tenants[0])).letters
    ] == ids[:1]
    assert await ingest_client.delete_dead_letters(ids) == 2


async def test_a_full_queue_sends_a_retry_time(idle_service: IdleService) -> None:
    words = ("--max-queued", "5", "--max-queued-per-tenant", "3")
    async with idle_service(*words, "--max-queued-bytes", str(1 << 20)) as client:
        await client.submit([c.Item(id="a", text="x")] * 3, tenant="a", job_id="first")
        request = submit(tenant="a")
        error = await refusal(client, "Submit", request)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata() or ())
        packed = status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))
        told = error_details_pb2.RetryInfo()
        assert any(one.Unpack(told) for one in packed.details) and told.retry_delay.seconds == 2
        with pytest.raises(Overloaded, match="tenant 'a' has 3 of 3 sources"):
            await client.submit([c.Item(id="a", text="x")], tenant="a")
        # Sources already queued are acknowledged, however full the queue is.
        job = await client.submit([c.Item(id="a", text="x")] * 3, tenant="a", job_id="first")
        assert job.sources == 3
        with pytest.raises(Overloaded, match="3 of 5 sources are in the queue") as caught:
            await client.submit([c.Item(id="a", text="x")] * 3, tenant="b")
        assert caught.value.retry_after_s == 2.0
        # Alone it would fit, with what Redis needs besides.
        largest = [c.SourceFile("a.txt", b"x" * ((1 << 20) - 600))]
        with pytest.raises(Overloaded, match=f"of {1 << 20} bytes"):
            await client.submit(largest, tenant="b")
        for never in ([c.SourceFile("a.txt", b"x" * (1 << 20))], [c.Item(id="a", text="x")] * 4):
            with pytest.raises(InvalidRequest, match="exceed the capacity of the queue") as refused:
                await client.submit(never, tenant="b")
            assert refused.value.field == "sources"
        state = await client.queue()
        assert (state.waiting, state.lag, state.workers) == (3, 3, [])
        assert state.bytes > 0 and state.oldest_age_s > 0


async def test_a_job_without_workers_is_cancelled_when_a_worker_starts(
    idle_service: IdleService,
) -> None:
    async with idle_service() as client:
        await client.submit([c.Item(id="a", text="x")] * 2, job_id="j", more=True)
        for _ in range(2):
            job = await client.cancel("j")
            assert (job.state, job.left, job.open) == (c.JobState.CANCELLING, 2, False)
        with pytest.raises(Conflict, match="is closed for more sources"):
            await client.submit([c.Item(id="a", text="x")], job_id="j", offset=2)
        assert (await client.results("j")).results == []


async def test_an_abandoned_open_job_is_closed(idle_service: IdleService) -> None:
    async with idle_service("--abandoned-s", "1") as client:
        await client.submit([c.Item(id="a", text="x")], job_id="j", more=True)
        async for job in client.watch("j", timeout_s=60.0):
            if not job.open:
                break
        assert (job.open, job.ended, job.left) == (False, False, 1)


async def test_the_service_reports_a_lost_redis_and_recovers(tmp_path: Path) -> None:
    async with redis_process(tmp_path) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        service = ingest_process(url)
        process = await service.__aenter__()
        client = IngestClient(process.address)
        await client.submit([c.Item(id="a", text="x")], job_id="j")
    try:
        for method, request in (("Submit", submit()), *MISSING, ("GetQueue", pb.GetQueueRequest())):
            error = await refusal(client, method, request)
            assert error.code() is grpc.StatusCode.UNAVAILABLE, method
            assert "Redis does not answer" in (error.details() or "")
            ours = status.from_rpc_error(error, "")
            assert isinstance(ours, NotReady) and ours.retry_after_s == 2.0
        async with redis_process(tmp_path, port):
            assert (await client.job("j")).left == 1
    finally:
        await client.close()
        await service.__aexit__(None, None, None)
