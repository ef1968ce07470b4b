"""The queue from the submitter's side: jobs, results and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from index_builder.ingest import keys, scripts
from index_builder.ingest.capacity import Capacity
from index_builder.ingest.codec import (
    decode_job,
    is_job,
    pack_source,
    unpack_result,
)
from index_builder.ingest.dead_letter_store import DeadLetterStore, no_letter
from index_builder.ingest.keys import Lane
from index_builder.ingest.records import QueueLimits, Submission
from index_builder.ingest.script_functions import UNIT_BYTES
from index_builder.ingest.script_runner import NEEDED_BY, open_pipeline, run_script
from nearline import contract as c
from nearline.access.tenant_ids import name_of
from nearline.errors import Conflict, InvalidRequest, NotFound, Overloaded
from nearline.tracing.spans import current_span, traceparent_of
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import Durability

# Jobs scanned for one page; a page may be empty without being the last one.
_MAX_SCANNED = 2_000
_RETRY_AFTER_S = 2.0
# Jobs forgotten by one script.
_FORGOTTEN = 100


class JobStore:
    """Accepts submissions, and reports their progress.

    letters: Dead letters.

    Args:
        client: Redis.
        durability: Checks that accepted data survives a failure of Redis.
        limits: Capacity of the queue.
    """

    def __init__(self, client: Redis, durability: Durability, limits: QueueLimits) -> None:
        self._client = client
        self._durability = durability
        self._capacity = Capacity(client, limits)
        self.letters = DeadLetterStore(client)

    async def submit(self, submission: Submission) -> None:
        """Adds sources to the queue, durably.

        Raises: NotReady: Redis is unavailable, or would not keep them. Overloaded: the queue has no
            room for them. Conflict: the job has different parameters or a different number of
            sources, or is closed. InvalidRequest: a source cannot be stored.
        """
        # In a thread, since there may be 64 MiB of attributes.
        words = await asyncio.to_thread(_words_of, submission.sources)
        await self._submit(submission, words)

    async def requeue(self, letter_ids: Sequence[str], job_id: str, ttl_s: float) -> None:
        """Returns dead letters to the queue, as a job of their own.

        They keep their original time: changes made after they were first submitted take precedence.

        Raises: NotFound: a letter does not exist. InvalidRequest: the letters belong to different
            collections or tenants, or the source of one was dropped. All errors of `submit`.
        """
        letters = await self.letters.fields(letter_ids)
        first = next(iter(letters.values()))
        names = (b"tenant", b"collection")
        for letter_id, fields in letters.items():
            if any(fields[one] != first[one] for one in names):
                raise InvalidRequest(
                    f"dead letter {letter_id} belongs to a different collection or tenant than "
                    f"{letter_ids[0]}; requeue the letters of each separately",
                    field="letter_ids",
                )
        words: list[str | bytes | int] = []
        for letter_id, fields in letters.items():
            # Redis has the sources; letters of earlier versions have it among their fields.
            words += [fields.get(b"source", b""), fields[b"as_of"], letter_id]
        submission = Submission(
            job_id=job_id,
            sources=(),
            collection=first[b"collection"].decode(),
            tenant=first[b"tenant"].decode(),
            priority=c.JobPriority(first[b"priority"].decode() or "normal"),
            callback_id=first[b"callback"].decode(),
            ttl_s=ttl_s,
        )
        await self._submit(submission, words)

    async def close(self, job_id: str, *, cancel: bool) -> None:
        """Closes a job for more sources, and optionally cancels its remaining documents.

        Raises: NotFound, NotReady.
        """
        exists = await run_script(
            self._client,
            scripts.CLOSE,
            [keys.OPEN, keys.job_key(job_id), keys.results_key(job_id)],
            [job_id, int(cancel)],
            self._durability,
        )
        if not exists:
            raise no_job(job_id)

    async def job(self, job_id: str) -> c.Job:
        """Returns a job. Raises: NotFound, NotReady."""
        [job] = await self._jobs([job_id])
        if job is None:
            raise no_job(job_id)
        return job

    async def jobs(
        self, before_us: int, matches: Mapping[str, str], states: Collection[c.JobState], limit: int
    ) -> tuple[list[c.Job], int]:
        """Lists jobs, newest first.

        Args:
            before_us: Only jobs created before this; microseconds since 1970.
            matches: Values that fields of a job must have, such as tenant.
            states: States that a job may have; any if empty.
            limit: Maximum number of jobs.
        Returns: The jobs, and the start of the next page; 0 if there is none.
        """
        found: list[c.Job] = []
        key = f"{keys.JOBS}:{matches['tenant']}" if "tenant" in matches else keys.JOBS
        async with translate_redis_errors(NEEDED_BY):
            names: Any = await self._client.zrevrangebyscore(
                key, f"({before_us}", "-inf", start=0, num=_MAX_SCANNED, withscores=True
            )
        for at in range(0, len(names), 100):
            part = names[at : at + 100]
            jobs = await self._jobs([name.decode() for name, _ in part])
            for (_, created_us), job in zip(part, jobs, strict=True):
                if job is None or any(getattr(job, key) != one for key, one in matches.items()):
                    continue
                if states and job.state not in states:
                    continue
                found.append(job)
                if len(found) == limit:
                    return found, int(created_us)
        return found, int(names[-1][1]) if len(names) == _MAX_SCANNED else 0

    async def results(
        self, job_id: str, first: int, limit: int
    ) -> tuple[list[c.IngestResult], int | None]:
        """Lists results of a job by place, starting with the first place given.

        Returns: The results, and the start of the next page; None if there is none.
        Raises: NotFound, NotReady.
        """
        places = range(first, first + limit)
        async with open_pipeline(self._client) as pipe:
            pipe.hget(keys.job_key(job_id), "units")
            pipe.hmget(keys.results_key(job_id), [str(one) for one in places])
            units, packed = await pipe.execute()
        if units is None:
            raise no_job(job_id)
        results = [unpack_result(one) for one in packed if one is not None]
        return results, places.stop if places.stop < int(units) else None

    async def forget_jobs(self) -> None:
        """Removes expired jobs from the list of jobs.

        Also drops the oldest finished jobs while jobs and results take more than their limit.

        Raises: NotReady.
        """
        start = 0
        while True:
            async with translate_redis_errors(NEEDED_BY):
                found: Any = await self._client.zrange(keys.JOBS, start, start + _FORGOTTEN - 1)
            if not found:
                return
            job_ids = [one.decode() for one in found]
            names = [keys.META, keys.JOBS, keys.RESULT_BYTES, keys.JOB_TENANTS]
            for one in job_ids:
                names += [keys.job_key(one), keys.results_key(one)]
            words = [int(await self._has_too_many_results()), *job_ids]
            forgotten = await run_script(self._client, scripts.FORGET_JOBS, names, words)
            start += len(job_ids) - forgotten

    async def _has_too_many_results(self) -> bool:
        async with translate_redis_errors(NEEDED_BY):
            held = await self._client.hget(keys.META, "result_bytes")
        return int(held or 0) > (await self._capacity.limits()).result_bytes

    async def _submit(self, submission: Submission, words: Sequence[str | bytes | int]) -> None:
        limits, count = await self._capacity.limits(), len(words) // 3
        size = sum(len(one) for one in words[::3] if isinstance(one, bytes))
        _check_fits(count, size, limits)
        await self._durability.check()
        span = current_span()
        job_id, lane = submission.job_id, Lane(submission.priority, submission.tenant)
        answer = await run_script(
            self._client,
            scripts.SUBMIT,
            [
                *(keys.META, keys.TENANTS, keys.LOADS, keys.JOBS, keys.OPEN, keys.DEAD),
                *(keys.DEAD_SOURCES, lane.key, keys.job_key(job_id), keys.results_key(job_id)),
                *(keys.RESULT_BYTES, keys.JOB_TENANTS),
            ],
            [
                *(job_id, submission.tenant, submission.collection, submission.priority.value),
                *(submission.callback_id, submission.offset, int(submission.more)),
                *(int(submission.ttl_s * 1_000), limits.units, limits.tenant_units, limits.bytes),
                "" if span is None else traceparent_of(span),
                *words,
            ],
            self._durability,
        )
        _check_taken(answer, submission, count, limits)

    async def _jobs(self, job_ids: Sequence[str]) -> list[c.Job | None]:
        async with open_pipeline(self._client) as pipe:
            for one in job_ids:
                pipe.hgetall(keys.job_key(one))
                pipe.pexpiretime(keys.job_key(one))
            replies = await pipe.execute()
        return [
            decode_job(job_id, fields, expires_ms) if is_job(fields) else None
            for job_id, fields, expires_ms in zip(job_ids, replies[::2], replies[1::2], strict=True)
        ]


def _check_fits(count: int, size: int, limits: QueueLimits) -> None:
    """Refuses submissions larger than the whole queue, for which waiting would not help."""
    limit = min(limits.units, limits.tenant_units)
    if count <= limit and size + count * UNIT_BYTES <= limits.bytes:
        return
    raise InvalidRequest(
        f"{count} sources of {size} bytes exceed the capacity of the queue, {limit} sources per "
        f"tenant and {limits.bytes} bytes; send fewer at once, or raise --max-queued, "
        "--max-queued-per-tenant, --max-queued-bytes or the maxmemory of Redis",
        field="sources",
    )


def _check_taken(
    answer: Sequence[Any], submission: Submission, count: int, limits: QueueLimits
) -> None:
    word, job_id = answer[0].decode(), name_of(submission.job_id)
    if word == "OK":
        return
    if word == "LETTER":
        raise no_letter(answer[1].decode())
    if word == "DROPPED":
        raise InvalidRequest(
            f"the source of dead letter {answer[1].decode()} was dropped, since dead letters keep "
            f"{limits.dead_bytes} bytes of sources at most (--max-dead-letter-bytes); submit the "
            "document again, and delete the letter",
            field="letter_ids",
        )
    if word == "OTHER":
        raise Conflict(
            f"job {job_id} has a different tenant, collection or priority; choose another job_id"
        )
    if word == "CLOSED":
        raise Conflict(f"job {job_id} is closed for more sources; submit them as a new job")
    if word == "GAP":
        raise Conflict(
            f"job {job_id} has {answer[1]} sources, but offset is {submission.offset}; continue at "
            f"offset {answer[1]}"
        )
    full = {
        "FULL": f"{answer[1]} of {limits.units} sources are in the queue",
        "MINE": f"tenant {submission.tenant!r} has {answer[1]} of {limits.tenant_units} sources "
        "in the queue",
        "BYTES": f"{answer[1]} of {limits.bytes} bytes are in the queue",
        "SHARE": f"tenant {submission.tenant!r} has {answer[1]} bytes in the queue, and may have "
        f"{limits.bytes // 2}",
    }[word]
    remedy = "retry later, or start more workers"
    if word in {"BYTES", "SHARE"}:
        remedy += ", delete dead letters (nearline letters delete)" if answer[2] else ""
        remedy += ", or raise --max-queued-bytes and the maxmemory of Redis"
    raise Overloaded(
        f"{full}, which leaves no room for {count} more; {remedy}",
        retry_after_s=_RETRY_AFTER_S,
    )


def _words_of(sources: Sequence[c.IngestSource]) -> list[str | bytes | int]:
    """Returns the arguments of the script that adds sources; see `scripts.SUBMIT`."""
    words: list[str | bytes | int] = []
    for source in sources:
        words += [pack_source(source), "", ""]
    return words


def no_job(job_id: str) -> NotFound:
    return NotFound(
        f"there is no job {name_of(job_id)!r}; its results may have expired. List jobs: nearline "
        "jobs list"
    )
