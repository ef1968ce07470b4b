"""IngestService over gRPC: converts messages to records and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from index_builder.ingest.service import IngestService
from nearline import contract as c, wire
from nearline.call_guard import Context, time_left_s
from nearline.v1 import ingest_pb2, ingest_pb2_grpc


class IngestServicer(ingest_pb2_grpc.IngestServiceServicer):
    """Serves an `IngestService`.

    Args:
        service: Handles the requests.
    """

    def __init__(self, service: IngestService) -> None:
        self._service = service

    async def Submit(
        self, request: ingest_pb2.SubmitRequest, context: Context
    ) -> ingest_pb2.SubmitResponse:
        """Adds sources to the queue."""
        job = await self._service.submit(
            wire.sources_of(request),
            collection=request.collection or c.DEFAULT_COLLECTION,
            tenant=request.tenant or c.DEFAULT_TENANT,
            priority=wire.priority_from_proto(request.priority),
            callback_id=request.callback_id,
            job_id=request.job_id,
            offset=request.offset,
            more=request.more,
            result_ttl_s=wire.result_ttl_of(request),
            timeout_s=time_left_s(context),
        )
        return ingest_pb2.SubmitResponse(job=wire.job_to_proto(job))

    async def GetJob(
        self, request: ingest_pb2.GetJobRequest, context: Context
    ) -> ingest_pb2.GetJobResponse:
        """Returns one job."""
        job = await self._service.job(request.job_id, timeout_s=time_left_s(context))
        return ingest_pb2.GetJobResponse(job=wire.job_to_proto(job))

    async def WatchJob(
        self, request: ingest_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[ingest_pb2.WatchJobResponse]:
        """Streams a job: immediately and after every change."""
        jobs = self._service.watch(request.job_id, timeout_s=time_left_s(context))
        async with aclosing(jobs):
            async for job in jobs:
                yield ingest_pb2.WatchJobResponse(job=wire.job_to_proto(job))

    async def ListJobs(
        self, request: ingest_pb2.ListJobsRequest, context: Context
    ) -> ingest_pb2.ListJobsResponse:
        """Lists jobs."""
        page = await self._service.jobs(
            tenant=request.tenant,
            collection=request.collection,
            callback_id=request.callback_id,
            states=wire.states_from_proto(request.states),
            page_size=request.page_size,
            token=request.page_token,
            timeout_s=time_left_s(context),
        )
        return ingest_pb2.ListJobsResponse(
            jobs=map(wire.job_to_proto, page.jobs), next_page_token=page.token
        )

    async def CancelJob(
        self, request: ingest_pb2.CancelJobRequest, context: Context
    ) -> ingest_pb2.CancelJobResponse:
        """Cancels the documents of a job that are not processed yet."""
        job = await self._service.cancel(request.job_id, timeout_s=time_left_s(context))
        return ingest_pb2.CancelJobResponse(job=wire.job_to_proto(job))

    async def ListResults(
        self, request: ingest_pb2.ListResultsRequest, context: Context
    ) -> ingest_pb2.ListResultsResponse:
        """Lists the outcomes of the documents of a job."""
        page = await self._service.results(
            request.job_id,
            page_size=request.page_size,
            token=request.page_token,
            timeout_s=time_left_s(context),
        )
        return ingest_pb2.ListResultsResponse(
            results=map(wire.ingest_result_to_proto, page.results), next_page_token=page.token
        )

    async def ListDeadLetters(
        self, request: ingest_pb2.ListDeadLettersRequest, context: Context
    ) -> ingest_pb2.ListDeadLettersResponse:
        """Lists dead letters."""
        page = await self._service.dead_letters(
            tenant=request.tenant,
            job_id=request.job_id,
            with_source=request.with_source,
            page_size=request.page_size,
            token=request.page_token,
            timeout_s=time_left_s(context),
        )
        return ingest_pb2.ListDeadLettersResponse(
            letters=map(wire.letter_to_proto, page.letters), next_page_token=page.token
        )

    async def RequeueDeadLetters(
        self, request: ingest_pb2.RequeueDeadLettersRequest, context: Context
    ) -> ingest_pb2.RequeueDeadLettersResponse:
        """Returns dead letters to the queue."""
        job = await self._service.requeue(
            request.letter_ids, job_id=request.job_id, timeout_s=time_left_s(context)
        )
        return ingest_pb2.RequeueDeadLettersResponse(job=wire.job_to_proto(job))

    async def DeleteDeadLetters(
        self, request: ingest_pb2.DeleteDeadLettersRequest, context: Context
    ) -> ingest_pb2.DeleteDeadLettersResponse:
        """Deletes dead letters."""
        deleted = await self._service.delete_dead_letters(
            request.letter_ids, timeout_s=time_left_s(context)
        )
        return ingest_pb2.DeleteDeadLettersResponse(deleted=deleted)

    async def GetQueue(
        self, request: ingest_pb2.GetQueueRequest, context: Context
    ) -> ingest_pb2.GetQueueResponse:
        """Returns the state of the queue."""
        return wire.queue_response(await self._service.queue(timeout_s=time_left_s(context)))
