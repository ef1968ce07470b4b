"""Sources go to the queue as one job, request by request; a job is watched until it has ended."""

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

JobCallback = Callable[[c.Job], None]
_PAUSE_S = 1.0
# Until it is on disk, which may be slow.
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What holds for a whole job; see SubmitRequest in ingest.proto."""

    job_id: str
    collection: str
    tenant: str
    priority: c.JobPriority
    callback_id: str
    result_ttl_s: float | None


class Submitter:
    """Submits sources as one job, from where the job is.

    Args:
        client: Of the ingest service.
        terms: Of the job.
        shown: Told of the job as it is after each request.
    """

    def __init__(self, client: IngestClient, terms: JobOptions, shown: JobCallback) -> None:
        self._client = client
        self._terms = terms
        self._shown = shown
        # Set once the job is there.
        self.began = asyncio.Event()
        self.job: c.Job | None = None
        # Where a request was sent and its answer is awaited, the job may be there, too.
        self.sent = False

    async def look(self) -> None:
        """Sees whether the job is there already. Raises: NotReady: the service is away."""
        try:
            self._take(await self._client.job(self._terms.job_id))
        except NotFound:
            self.job = None

    async def submit(self, given: Iterator[SizedSource]) -> None:
        """Submits what the job does not have yet; nothing where it has all.

        Args:
            given: All sources of the job, from the first.
        Raises: InvalidRequest: there is none, or fewer than the job has. Conflict: the job takes
            no more, or is another's. What a service raises that does not answer for a minute.
        """
        known = 0 if self.job is None else self.job.sources
        last = await asyncio.to_thread(_pass_over, given, known, self._terms.job_id)
        parts = request_batches(given)
        part = await asyncio.to_thread(next, parts, None)
        if part is None and last is not None and self.job is not None and self.job.open:
            # All are there, but nobody said that they are all.
            await self._send([last], known - 1, more=False)
        while part is not None:
            following = await asyncio.to_thread(next, parts, None)
            await self._send(part, known, more=following is not None)
            known += len(part)
            part = following

    async def _send(self, part: list[c.IngestSource], offset: int, *, more: bool) -> None:
        terms = self._terms
        self.sent = True
        self._take(
            await retry_while_unavailable(
                lambda: self._client.submit(
                    part,
                    collection=terms.collection,
                    tenant=terms.tenant,
                    priority=terms.priority,
                    callback_id=terms.callback_id,
                    job_id=terms.job_id,
                    offset=offset,
                    more=more,
                    result_ttl_s=terms.result_ttl_s,
                    timeout_s=_TIMEOUT_S,
                )
            )
        )

    def _take(self, job: c.Job) -> None:
        self.job = job
        self._shown(job)
        self.began.set()


async def wait_for_job(
    client: IngestClient, job_id: str, shown: JobCallback, timeout_s: float | None = None
) -> c.Job:
    """Waits until a job has ended, while the service is started again, too; gives it as it is then.

    Args:
        client: Of the ingest service.
        job_id: Which job.
        shown: Told of the job whenever it has changed.
        timeout_s: Longest wait; None: for ever.
    Raises: NotFound: there is no such job. NotReady: the service is away for a minute.
        DeadlineExceeded: the job did not end in time.
    """
    away_since: float | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async for job in client.watch(job_id):
                        away_since = None
                        shown(job)
                        if job.ended:
                            return job
                except NotReady:
                    now = time.monotonic()
                    away_since = now if away_since is None else away_since
                    if now - away_since >= AWAY_S:
                        raise
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"job {job_id} did not end within {timeout_s:g} s; it goes on: nearline jobs wait "
            f"{job_id}"
        ) from error


def _pass_over(given: Iterator[SizedSource], count: int, job_id: str) -> c.IngestSource | None:
    """Reads past sources that a job has; gives the last of them."""
    last = None
    for number in range(count):
        one = next(given, None)
        if one is None:
            raise InvalidRequest(
                f"job {job_id} has {count} sources, and what was named has {number}; name the same "
                "as before, or leave out --job",
                field="job_id",
            )
        last = one.source
    return last
