"""Async client of the ingest service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import cast

import grpc

from nearline import contract as c, status, wire
from nearline.channel import ServiceChannel
from nearline.clients.arguments import converts_arguments
from nearline.tls import TlsFiles
from nearline.v1 import ingest_pb2, ingest_pb2_grpc


@converts_arguments
class IngestClient(ServiceChannel):
    """Client of the ingest service; an `Ingestor`.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(address, token=token, tls=tls)
        self._stub = ingest_pb2_grpc.IngestServiceStub(self.grpc_channel)

    async def submit(
        self,
        sources: Sequence[c.IngestSource],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        tenant: str = "",
        priority: c.JobPriority | str = c.JobPriority.NORMAL,
        callback_id: str = "",
        job_id: str = "",
        offset: int = 0,
        more: bool = False,
        result_ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> c.Job:
        """Submits 1..1024 sources; see `Ingestor.submit`.

        job_id: If empty, a random id is used, so that retries submit the sources only once.
        """
        request = wire.submit_request(
            sources,
            collection=collection,
            tenant=tenant,
            priority=cast(c.JobPriority, priority),
            callback_id=callback_id,
            job_id=job_id or c.new_job_id(),
            offset=offset,
            more=more,
            result_ttl_s=result_ttl_s,
        )
        reply = await self.send(self._stub.Submit, request, timeout_s)
        return wire.job_from_proto(reply.job)

    async def job(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Returns a job; see `Ingestor.job`."""
        request = ingest_pb2.GetJobRequest(job_id=job_id)
        reply = await self.send(self._stub.GetJob, request, timeout_s)
        return wire.job_from_proto(reply.job)

    async def watch(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> AsyncGenerator[c.Job, None]:
        """Yields a job immediately and after each change; see `Ingestor.watch`.

        timeout_s: Time limit of the whole stream; None waits until the job has ended.
        """
        request = ingest_pb2.WatchJobRequest(job_id=job_id)
        call = self.begin(lambda: self._stub.WatchJob(request, timeout=timeout_s))
        try:
            async for message in call:
                yield wire.job_from_proto(message.job)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Waits until a job has ended, and returns its last state.

        Args:
            job_id: The job.
            timeout_s: Longest wait in seconds. Optional; None disables the limit.
        Raises: NotFound: there is no such job. DeadlineExceeded: it did not end in time.
        """
        async for job in self.watch(job_id, timeout_s=timeout_s):
            last = job
        return last

    async def jobs(
        self,
        *,
        tenant: str = "",
        collection: str = "",
        callback_id: str = "",
        states: Collection[c.JobState | str] = (),
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
    ) -> c.JobPage:
        """Lists jobs, newest first; see `Ingestor.jobs`."""
        request = ingest_pb2.ListJobsRequest(
            tenant=tenant,
            collection=collection,
            callback_id=callback_id,
            states=[wire.JOB_STATES[one] for one in cast(Collection[c.JobState], states)],
            page_size=page_size,
            page_token=token,
        )
        reply = await self.send(self._stub.ListJobs, request, timeout_s)
        jobs = [wire.job_from_proto(one) for one in reply.jobs]
        return c.JobPage(jobs=jobs, token=reply.next_page_token)

    async def cancel(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Cancels the documents of a job that are not processed yet."""
        request = ingest_pb2.CancelJobRequest(job_id=job_id)
        reply = await self.send(self._stub.CancelJob, request, timeout_s)
        return wire.job_from_proto(reply.job)

    async def results(
        self, job_id: str, *, page_size: int = 0, token: str = "", timeout_s: float | None = None
    ) -> c.ResultPage:
        """Lists the results of the documents of a job; see `Ingestor.results`."""
        request = ingest_pb2.ListResultsRequest(
            job_id=job_id, page_size=page_size, page_token=token
        )
        reply = await self.send(self._stub.ListResults, request, timeout_s)
        results = [wire.ingest_result_from_proto(one) for one in reply.results]
        return c.ResultPage(results=results, token=reply.next_page_token)

    async def dead_letters(
        self,
        *,
        tenant: str = "",
        job_id: str = "",
        with_source: bool = False,
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
    ) -> c.DeadLetterPage:
        """Lists dead letters, oldest first; see `Ingestor.dead_letters`."""
        request = ingest_pb2.ListDeadLettersRequest(
            tenant=tenant,
            job_id=job_id,
            with_source=with_source,
            page_size=page_size,
            page_token=token,
        )
        reply = await self.send(self._stub.ListDeadLetters, request, timeout_s)
        letters = [wire.letter_from_proto(one) for one in reply.letters]
        return c.DeadLetterPage(letters=letters, token=reply.next_page_token)

    async def requeue(
        self, letter_ids: Sequence[str], *, job_id: str = "", timeout_s: float | None = None
    ) -> c.Job:
        """Puts dead letters back into the queue; see `Ingestor.requeue`.

        job_id: If empty, a random id is used, so that retries requeue them only once.
        """
        request = ingest_pb2.RequeueDeadLettersRequest(
            letter_ids=letter_ids, job_id=job_id or c.new_job_id()
        )
        reply = await self.send(self._stub.RequeueDeadLetters, request, timeout_s)
        return wire.job_from_proto(reply.job)

    async def delete_dead_letters(
        self, letter_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> int:
        """Deletes dead letters; returns how many existed."""
        request = ingest_pb2.DeleteDeadLettersRequest(letter_ids=letter_ids)
        reply = await self.send(self._stub.DeleteDeadLetters, request, timeout_s)
        return reply.deleted

    async def queue(self, *, timeout_s: float | None = None) -> c.QueueState:
        """Returns the state of the queue."""
        request = ingest_pb2.GetQueueRequest()
        reply = await self.send(self._stub.GetQueue, request, timeout_s)
        return wire.queue_state(reply)
