"""Submits sources to the ingest queue as one job, and waits until the job has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.errors import DeadlineExceeded, InvalidRequest, NotFound, NotReady
from nearline.retry import AWAY_S, retry_while_unavailable
from nearline_cli.inputs.sources import SizedSource, request_batches
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import waiting_note

JobCallback = Callable[[c.Job], None]
_PAUSE_S = 1.0
# The submission must reach the disk, which may be slow.
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of a whole job; see SubmitRequest in ingest.proto."""

    job_id: str
    collection: str
    tenant: str
    priority: c.JobPriority
    callback_id: str
    result_ttl_s: float | None


class Submitter:
    """Submits sources as one job, continuing where the job is.

    Args:
        client: Client of the ingest service.
        job_options: Options of the job.
        on_job: Called with the job after each request.
        quiet: Whether to report nothing on standard error.
    """

    def __init__(
        self,
        client: IngestClient,
        job_options: JobOptions,
        on_job: JobCallback,
        *,
        quiet: bool = False,
    ) -> None:
        self._client = client
        self._quiet = quiet
        self._options = job_options
        self._on_job = on_job
        # Set once the job exists.
        self.began = asyncio.Event()
        self.job: c.Job | None = None
        # While the reply to a request is awaited, the job may already exist.
        self.sent = False

    async def look(self) -> None:
        """Finds out whether the job exists already.

        Raises:
            NotReady: The service is unavailable.
        """
        try:
            self._take(await self._client.job(self._options.job_id))
        except NotFound:
            self.job = None

    async def submit(self, sources: Iterator[SizedSource]) -> None:
        """Submits the sources that the job does not have yet.

        Args:
            sources: All sources of the job, from the first.
        Raises:
            InvalidRequest: There are no sources, or fewer than the job has.
            Conflict: The job accepts no more sources, or belongs to somebody else.
            NotReady, DeadlineExceeded: The service did not answer for a minute.
        """
        known = 0 if self.job is None else self.job.sources
        last = await asyncio.to_thread(_skip, sources, known, self._options.job_id)
        parts = request_batches(sources)
        part = await asyncio.to_thread(next, parts, None)
        if part is None and last is not None and self.job is not None and self.job.open:
            # The job has all sources, but was not closed.
            await self._send([last], known - 1, more=False)
        while part is not None:
            following = await asyncio.to_thread(next, parts, None)
            await self._send(part, known, more=following is not None)
            known += len(part)
            part = following

    async def _send(self, part: list[c.IngestSource], offset: int, *, more: bool) -> None:
        options = self._options
        self.sent = True
        with waiting_note(self._client.address, quiet=self._quiet):
            job = await retry_while_unavailable(
                lambda: self._client.submit(
                    part,
                    collection=options.collection,
                    tenant=options.tenant,
                    priority=options.priority,
                    callback_id=options.callback_id,
                    job_id=options.job_id,
                    offset=offset,
                    more=more,
                    result_ttl_s=options.result_ttl_s,
                    timeout_s=_TIMEOUT_S,
                )
            )
        self._take(job)

    def _take(self, job: c.Job) -> None:
        self.job = job
        self._on_job(job)
        self.began.set()


async def wait_for_job(
    client: IngestClient,
    job_id: str,
    on_job: JobCallback,
    timeout_s: float | None = None,
    *,
    quiet: bool = False,
) -> c.Job:
    """Waits until a job has ended, even across restarts of the service; returns the job.

    Args:
        client: Client of the ingest service.
        job_id: Id of the job.
        on_job: Called with the job whenever it changes.
        timeout_s: Maximum wait. If None, unlimited.
        quiet: Whether to report nothing on standard error.
    Raises:
        NotFound: The job does not exist.
        NotReady: The service is unavailable for a minute.
        DeadlineExceeded: The job did not end in time.
    """
    away_since: float | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async for job in client.watch(job_id):
                        away_since = None
                        on_job(job)
                        if job.ended:
                            return job
                except NotReady:
                    now = time.monotonic()
                    if away_since is None:
                        away_since = now
                        if not quiet:
                            output.print_note(f"waiting for {client.address} …")
                    elif now - away_since >= AWAY_S:
                        raise
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"job {job_id} did not end within {timeout_s:g} s; it continues: nearline jobs wait "
            f"{job_id}"
        ) from error


def _skip(sources: Iterator[SizedSource], count: int, job_id: str) -> c.IngestSource | None:
    """Skips sources that the job already has; returns the last of them."""
    last = None
    for number in range(count):
        one = next(sources, None)
        if one is None:
            raise InvalidRequest(
                f"job {job_id} has {count} sources, but only {number} were named; name the same "
                "as before, or leave out --job",
                field="job_id",
            )
        last = one.source
    return last
