"""IngestService over gRPC: converts messages to records and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace

from index_builder.ingest.service import IngestService
from nearline import contract as c, wire
from nearline.access.limits import page_size
from nearline.access.method_guard import current_caller, current_limits
from nearline.access.tenant_ids import shown_id, stored_id
from nearline.calls.guard import Context, time_left_s
from nearline.errors import NotFound
from nearline.v1 import ingest_pb2 as pb, ingest_pb2_grpc
from retrieval.protocols.compute_threads import read_request


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Serves an `IngestService`.

    Args:
        service: Handles the requests.
    """

    def __init__(self, service: IngestService) -> None:
        self._service = service

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Adds sources to the queue."""
        job = await self._service.submit(
            await read_request(wire.sources_of, request),
            collection=request.collection or c.DEFAULT_COLLECTION,
            tenant=request.tenant,
            priority=wire.priority_from_proto(request.priority),
            callback_id=request.callback_id,
            job_id=await self._stored_id(request.job_id or c.new_job_id(), context),
            offset=request.offset,
            more=request.more,
            result_ttl_s=wire.result_ttl_of(request),
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.SubmitResponse(job=_job_to_proto(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Returns one job."""
        job = await self._service.job(
            await self._stored_id(request.job_id, context),
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.GetJobResponse(job=_job_to_proto(job))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Streams a job: immediately and after every change."""
        jobs = self._service.watch(
            await self._stored_id(request.job_id, context),
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        async with aclosing(jobs):
            async for job in jobs:
                yield pb.WatchJobResponse(job=_job_to_proto(job))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Lists jobs."""
        page = await self._service.jobs(
            tenant=request.tenant,
            collection=request.collection,
            callback_id=request.callback_id,
            states=wire.states_from_proto(request.states),
            page_size=page_size(current_limits(), request.page_size),
            token=request.page_token,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.ListJobsResponse(jobs=map(_job_to_proto, page.jobs), next_page_token=page.token)

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Cancels the documents of a job that are not processed yet."""
        job = await self._service.cancel(
            await self._stored_id(request.job_id, context),
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.CancelJobResponse(job=_job_to_proto(job))

    async def ListResults(
        self, request: pb.ListResultsRequest, context: Context
    ) -> pb.ListResultsResponse:
        """Lists the outcomes of the documents of a job."""
        page = await self._service.results(
            await self._stored_id(request.job_id, context),
            page_size=page_size(current_limits(), request.page_size),
            token=request.page_token,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.ListResultsResponse(
            results=map(wire.ingest_result_to_proto, page.results), next_page_token=page.token
        )

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        """Lists dead letters."""
        caller = current_caller()
        page = await self._service.dead_letters(
            tenant=request.tenant,
            job_id=await self._stored_id(request.job_id, context),
            with_source=request.with_source,
            page_size=page_size(current_limits(), request.page_size),
            token=request.page_token,
            timeout_s=time_left_s(context),
            caller=caller,
        )
        return pb.ListDeadLettersResponse(
            letters=[
                wire.letter_to_proto(replace(one, job_id=shown_id(caller, one.job_id)))
                for one in page.letters
            ],
            next_page_token=page.token,
        )

    async def RequeueDeadLetters(
        self, request: pb.RequeueDeadLettersRequest, context: Context
    ) -> pb.RequeueDeadLettersResponse:
        """Returns dead letters to the queue."""
        job = await self._service.requeue(
            request.letter_ids,
            job_id=await self._stored_id(request.job_id or c.new_job_id(), context),
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return pb.RequeueDeadLettersResponse(job=_job_to_proto(job))

    async def DeleteDeadLetters(
        self, request: pb.DeleteDeadLettersRequest, context: Context
    ) -> pb.DeleteDeadLettersResponse:
        """Deletes dead letters."""
        deleted = await self._service.delete_dead_letters(
            request.letter_ids, timeout_s=time_left_s(context), caller=current_caller()
        )
        return pb.DeleteDeadLettersResponse(deleted=deleted)

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.GetQueueResponse:
        """Returns the state of the queue."""
        return wire.queue_response(await self._service.queue(timeout_s=time_left_s(context)))

    async def _stored_id(self, job_id: str, context: Context) -> str:
        """Returns the id under which a job of the caller is stored, or would be.

        Jobs of release 0.2.0, and those that an operator submits for a tenant, have ids without it.
        """
        caller = current_caller()
        stored = stored_id(caller, job_id, "job_id")
        if stored != job_id:
            with suppress(NotFound):
                await self._service.job(job_id, timeout_s=time_left_s(context), caller=caller)
                return job_id
        return stored


def _job_to_proto(job: c.Job) -> pb.Job:
    return wire.job_to_proto(replace(job, job_id=shown_id(current_caller(), job.job_id)))
