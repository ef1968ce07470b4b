"""The ingest service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence

from index_builder.ingest.job_store import JobStore, Submission
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.validation import check_job_id, check_submission, page_size
from nearline import contract as c
from nearline.errors import DeadlineExceeded, InvalidRequest, NotFound, NotReady

# A job is looked at as often by whoever watches it.
_WATCH_S = 0.2
_LATEST_US = 10**17
_LETTER = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class IngestService:
    """Takes documents for the queue, and tells what became of them; an `Ingestor`.

    Args:
        desk: The queue.
        signal: Reads its state.
        result_ttl_s: How long results are kept where a submission does not say.
    """

    def __init__(self, desk: JobStore, signal: LoadStatsReader, result_ttl_s: float) -> None:
        self._desk = desk
        self._signal = signal
        self._ttl_s = result_ttl_s
        self._stopping = asyncio.Event()

    def stop_watching(self) -> None:
        """Ends the streams of those who watch a job; they may go on at another door."""
        self._stopping.set()

    async def submit(
        self,
        sources: Sequence[c.IngestSource],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        tenant: str = c.DEFAULT_TENANT,
        priority: c.JobPriority = c.JobPriority.NORMAL,
        callback_id: str = "",
        job_id: str = "",
        offset: int = 0,
        more: bool = False,
        result_ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> c.Job:
        """Puts sources into the queue; see `Ingestor.submit`."""
        job_id = job_id or c.new_job_id()
        check_submission(
            sources,
            collection=collection,
            tenant=tenant,
            callback_id=callback_id,
            job_id=job_id,
            offset=offset,
            result_ttl_s=result_ttl_s,
        )
        submission = Submission(
            job_id=job_id,
            sources=sources,
            collection=collection,
            tenant=tenant,
            priority=priority,
            callback_id=callback_id,
            offset=offset,
            more=more,
            ttl_s=self._ttl_s if result_ttl_s is None else result_ttl_s,
        )
        async with _within(timeout_s):
            await self._desk.submit(submission)
            return await self._desk.job(job_id)

    async def job(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Returns a job."""
        check_job_id(job_id)
        async with _within(timeout_s):
            return await self._desk.job(job_id)

    async def watch(self, job_id: str, *, timeout_s: float | None = None) -> AsyncGenerator[c.Job]:
        """Yields a job at once and whenever it has changed; see `Ingestor.watch`."""
        check_job_id(job_id)
        async with _within(timeout_s):
            shown = None
            while True:
                job = await self._desk.job(job_id)
                if job != shown:
                    yield job
                if job.ended:
                    return
                shown = job
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _WATCH_S)
                    raise NotReady("the ingest service is stopping; watch the job again")

    async def jobs(
        self,
        *,
        tenant: str = "",
        collection: str = "",
        callback_id: str = "",
        states: Collection[c.JobState] = (),
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
    ) -> c.JobPage:
        """Lists jobs, newest first."""
        before_us = _number(token) if token else _LATEST_US
        matches = _given({"tenant": tenant, "collection": collection, "callback_id": callback_id})
        async with _within(timeout_s):
            jobs, rest_us = await self._desk.jobs(before_us, matches, states, _size(page_size))
        return c.JobPage(jobs=jobs, token=str(rest_us) if rest_us else "")

    async def cancel(self, job_id: str, *, timeout_s: float | None = None) -> c.Job:
        """Cancels what of a job is not processed yet."""
        check_job_id(job_id)
        async with _within(timeout_s):
            await self._desk.close(job_id, cancel=True)
            return await self._desk.job(job_id)

    async def results(
        self, job_id: str, *, page_size: int = 0, token: str = "", timeout_s: float | None = None
    ) -> c.ResultPage:
        """Lists what became of the documents of a job."""
        check_job_id(job_id)
        first = _number(token) if token else 0
        async with _within(timeout_s):
            results, rest = await self._desk.results(job_id, first, _size(page_size))
        return c.ResultPage(results=results, token="" if rest is None else str(rest))

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
        """Lists dead letters, oldest first."""
        if token:
            _check_letters([token], "page_token")
        matches = {
            key.encode(): one for key, one in _given({"tenant": tenant, "job": job_id}).items()
        }
        async with _within(timeout_s):
            letters, last = await self._desk.dead_letters(
                token, matches, _size(page_size), with_source=with_source
            )
        return c.DeadLetterPage(letters=letters, token=last)

    async def requeue(
        self, letter_ids: Sequence[str], *, job_id: str = "", timeout_s: float | None = None
    ) -> c.Job:
        """Puts dead letters back into the queue; see `Ingestor.requeue`."""
        _check_letters(letter_ids, "letter_ids")
        job_id = job_id or c.new_job_id()
        check_job_id(job_id)
        async with _within(timeout_s):
            try:
                # A call that was sent again finds what the first one made.
                return await self._desk.job(job_id)
            except NotFound:
                await self._desk.requeue(letter_ids, job_id, self._ttl_s)
                return await self._desk.job(job_id)

    async def delete_dead_letters(
        self, letter_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> int:
        """Deletes dead letters; gives how many there were."""
        _check_letters(letter_ids, "letter_ids")
        async with _within(timeout_s):
            return await self._desk.delete_dead_letters(letter_ids)

    async def queue(self, *, timeout_s: float | None = None) -> c.QueueState:
        """Returns the state of the queue."""
        async with _within(timeout_s):
            return await self._signal.read()


@contextlib.asynccontextmanager
async def _within(timeout_s: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the queue did not answer within {timeout_s:g} s; try again, or allow more"
        ) from error


# A parameter of some methods has this name, too.
_size = page_size


def _given(fields: Mapping[str, str]) -> Mapping[str, str]:
    return {name: one for name, one in fields.items() if one}


def _number(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest(
            f"page_token {token!r} was not given out here; leave it out to begin with the first",
            field="page_token",
        )
    return int(token)


def _check_letters(letter_ids: Sequence[str], field: str) -> None:
    if not 1 <= len(letter_ids) <= c.MAX_BATCH:
        raise InvalidRequest(
            f"{field} has {len(letter_ids)} names; 1..{c.MAX_BATCH} are allowed", field=field
        )
    for one in letter_ids:
        # Redis counts both parts in 64 bits, and all that stays below 20 digits is.
        if not _LETTER.fullmatch(one):
            raise InvalidRequest(
                f"{one!r} is no dead letter; nearline jobs dead shows those there are", field=field
            )
    if len(set(letter_ids)) < len(letter_ids):
        raise InvalidRequest(f"{field} has a name twice; name each once", field=field)
