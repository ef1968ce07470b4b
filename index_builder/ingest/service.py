"""The ingest service: the domain object behind gRPC, also used embedded."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence

from index_builder.ingest.dead_letter_store import no_letter
from index_builder.ingest.job_store import JobStore, no_job
from index_builder.ingest.known_collections import KnownCollections
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import Submission
from index_builder.ingest.validation import check_job_id, check_submission, resolve_page_size
from nearline import contract as c
from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.rights import Right
from nearline.errors import DeadlineExceeded, InvalidRequest, NotFound, NotReady
from nearline.items.documents import check_text_bytes
from nearline.store.snapshot import check_collection
from nearline.wire.limits import BATCH, check_count
from retrieval.writes.feed_block import FeedBlock

# Polling interval of a watched job.
_WATCH_INTERVAL_S = 0.2
_LATEST_US = 10**17
_LETTER = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class IngestService:
    """Accepts documents for the queue, and reports their progress; an `Ingestor`.

    Args:
        job_store: Jobs, results and dead letters.
        load_stats: Reads the state of the queue.
        result_ttl_s: Seconds that results are kept if a submission does not say.
        feed_block: Refuses submissions while Redis is nearly full. Optional; None accepts all.
        collections: Refuses submissions to unknown collections. Optional; None accepts all.
    """

    def __init__(
        self,
        job_store: JobStore,
        load_stats: LoadStatsReader,
        result_ttl_s: float,
        feed_block: FeedBlock | None = None,
        collections: KnownCollections | None = None,
    ) -> None:
        self._feed_block = feed_block
        self._collections = collections
        self._job_store = job_store
        self._load_stats = load_stats
        self._ttl_s = result_ttl_s
        self._stopping = asyncio.Event()

    def stop_watching(self) -> None:
        """Ends the streams of watched jobs; their clients may continue at another instance."""
        self._stopping.set()

    async def submit(
        self,
        sources: Sequence[c.IngestSource],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        tenant: str = "",
        priority: c.JobPriority = c.JobPriority.NORMAL,
        callback_id: str = "",
        job_id: str = "",
        offset: int = 0,
        more: bool = False,
        result_ttl_s: float | None = None,
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> c.Job:
        """Adds sources to the queue; see `Ingestor.submit`."""
        if self._feed_block is not None:
            self._feed_block.check("submissions")
        job_id = job_id or c.new_job_id()
        submission = Submission(
            job_id=job_id,
            sources=sources,
            collection=collection,
            tenant=caller.tenant_of(tenant) or caller.tenant,
            priority=priority,
            callback_id=callback_id,
            offset=offset,
            more=more,
            ttl_s=self._ttl_s if result_ttl_s is None else result_ttl_s,
        )
        check_submission(submission)
        async with _deadline(timeout_s):
            await self._check_collections([collection])
            await self._job_store.submit(submission)
            return await self._job_store.job(job_id)

    async def job(
        self, job_id: str, *, timeout_s: float | None = None, caller: Caller = ANONYMOUS
    ) -> c.Job:
        """Returns a job."""
        check_job_id(job_id)
        async with _deadline(timeout_s):
            return await self._own_job(job_id, caller)

    async def watch(
        self, job_id: str, *, timeout_s: float | None = None, caller: Caller = ANONYMOUS
    ) -> AsyncGenerator[c.Job]:
        """Yields a job immediately and after every change; see `Ingestor.watch`."""
        check_job_id(job_id)
        async with _deadline(timeout_s):
            shown = None
            while True:
                job = await self._own_job(job_id, caller)
                if job != shown:
                    yield job
                if job.ended:
                    return
                shown = job
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _WATCH_INTERVAL_S)
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
        caller: Caller = ANONYMOUS,
    ) -> c.JobPage:
        """Lists jobs, newest first."""
        before_us = _parse_token(token) if token else _LATEST_US
        check_text_bytes(tenant, "tenant", c.MAX_TENANT_BYTES)
        check_text_bytes(callback_id, "callback_id", c.MAX_CALLBACK_BYTES)
        if collection:
            check_collection(collection)
        tenant = caller.tenant_of(tenant)
        matches = _non_empty(
            {"tenant": tenant, "collection": collection, "callback_id": callback_id}
        )
        async with _deadline(timeout_s):
            jobs, rest_us = await self._job_store.jobs(
                before_us, matches, states, resolve_page_size(page_size)
            )
        jobs = [one for one in jobs if caller.may(Right.READ, one.tenant, one.collection)]
        return c.JobPage(jobs=jobs, token=str(rest_us) if rest_us else "")

    async def cancel(
        self, job_id: str, *, timeout_s: float | None = None, caller: Caller = ANONYMOUS
    ) -> c.Job:
        """Cancels the documents of a job that are not processed yet."""
        check_job_id(job_id)
        async with _deadline(timeout_s):
            await self._check_owner(job_id, caller, Right.WRITE)
            await self._job_store.close(job_id, cancel=True)
            return await self._job_store.job(job_id)

    async def results(
        self,
        job_id: str,
        *,
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> c.ResultPage:
        """Lists the outcomes of the documents of a job."""
        check_job_id(job_id)
        first = _parse_token(token) if token else 0
        async with _deadline(timeout_s):
            await self._check_owner(job_id, caller)
            results, rest = await self._job_store.results(
                job_id, first, resolve_page_size(page_size)
            )
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
        caller: Caller = ANONYMOUS,
    ) -> c.DeadLetterPage:
        """Lists dead letters, oldest first."""
        if token:
            _check_letter_ids([token], "page_token")
        check_text_bytes(tenant, "tenant", c.MAX_TENANT_BYTES)
        if job_id:
            check_job_id(job_id)
        tenant = caller.tenant_of(tenant)
        matches = {
            key.encode(): one for key, one in _non_empty({"tenant": tenant, "job": job_id}).items()
        }
        async with _deadline(timeout_s):
            letters, last = await self._job_store.letters.page(
                token, matches, resolve_page_size(page_size), with_source=with_source
            )
        letters = [one for one in letters if caller.may(Right.READ, one.tenant, one.collection)]
        return c.DeadLetterPage(letters=letters, token=last)

    async def requeue(
        self,
        letter_ids: Sequence[str],
        *,
        job_id: str = "",
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> c.Job:
        """Returns dead letters to the queue; see `Ingestor.requeue`."""
        _check_letter_ids(letter_ids, "letter_ids")
        job_id = job_id or c.new_job_id()
        check_job_id(job_id)
        async with _deadline(timeout_s):
            try:
                # A repeated call finds the job of the first one.
                return await self._own_job(job_id, caller)
            except NotFound:
                if len(await self._own_letters(letter_ids, caller)) < len(letter_ids):
                    raise no_letter(letter_ids[0]) from None
                owners = await self._job_store.letters.owners(letter_ids)
                await self._check_collections({collection for _, collection in owners.values()})
                await self._job_store.requeue(letter_ids, job_id, self._ttl_s)
                return await self._job_store.job(job_id)

    async def delete_dead_letters(
        self,
        letter_ids: Sequence[str],
        *,
        timeout_s: float | None = None,
        caller: Caller = ANONYMOUS,
    ) -> int:
        """Deletes dead letters; returns the number deleted."""
        _check_letter_ids(letter_ids, "letter_ids")
        async with _deadline(timeout_s):
            own = await self._own_letters(letter_ids, caller)
            return await self._job_store.letters.delete(own) if own else 0

    async def _check_collections(self, names: Collection[str]) -> None:
        if self._collections is not None:
            for name in names:
                await self._collections.check(name)

    async def _own_job(self, job_id: str, caller: Caller, right: Right = Right.READ) -> c.Job:
        """Returns a job.

        Raises: NotFound: there is none, or it is of another tenant, or of a collection that the
            caller may not read. PermissionDenied: the caller may read it only.
        """
        job = await self._job_store.job(job_id)
        if not caller.may(Right.READ, job.tenant, job.collection):
            raise no_job(job_id)
        caller.require(right, "changing this job", job.collection)
        return job

    async def _check_owner(self, job_id: str, caller: Caller, right: Right = Right.READ) -> None:
        if not caller.is_unlimited(right):
            await self._own_job(job_id, caller, right)

    async def _own_letters(self, letter_ids: Sequence[str], caller: Caller) -> Sequence[str]:
        """Returns the letters that a caller may change; those of others count as missing."""
        if caller.is_unlimited(Right.WRITE):
            return letter_ids
        owners = await self._job_store.letters.owners(letter_ids)
        return [
            one for one in letter_ids if one in owners and caller.may(Right.WRITE, *owners[one])
        ]

    async def queue(self, *, timeout_s: float | None = None) -> c.QueueState:
        """Returns the state of the queue."""
        async with _deadline(timeout_s):
            return await self._load_stats.read()


@contextlib.asynccontextmanager
async def _deadline(timeout_s: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the queue did not answer within {timeout_s:g} s; retry, or set a longer timeout"
        ) from error


def _non_empty(fields: Mapping[str, str]) -> Mapping[str, str]:
    return {name: one for name, one in fields.items() if one}


def _parse_token(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest(
            f"page_token {token!r} is not a token of this service; leave it out for the first page",
            field="page_token",
        )
    return int(token)


def _check_letter_ids(letter_ids: Sequence[str], field: str) -> None:
    check_count(len(letter_ids), field, BATCH)
    for one in letter_ids:
        # Redis parses both parts as 64-bit integers; numbers below 20 digits fit.
        if not _LETTER.fullmatch(one):
            raise InvalidRequest(
                f"{one!r} is not the id of a dead letter; list them with nearline letters list",
                field=field,
            )
    if len(set(letter_ids)) < len(letter_ids):
        raise InvalidRequest(f"{field} contains an id twice; pass each once", field=field)
