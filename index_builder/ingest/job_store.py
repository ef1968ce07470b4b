"""The queue as those see it who submit: jobs, results and dead letters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from index_builder.ingest import keys, scripts
from index_builder.ingest.codec import pack_source, unpack_result, unpack_source
from index_builder.ingest.job_codec import decode_job, is_job
from index_builder.ingest.keys import Lane
from index_builder.ingest.records import QueueLimits
from index_builder.ingest.script_runner import NEEDED_BY, run_script
from nearline import contract as c
from nearline.errors import Conflict, InvalidRequest, NotFound, Overloaded
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import Durability

# Jobs and letters looked at for one page; a page may be empty and yet not be the last.
_LOOKED_AT = 2_000
_RETRY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Sources that belong together; see SubmitRequest in ingest.proto. ttl_s: Of results."""

    job_id: str
    sources: Sequence[c.IngestSource]
    collection: str
    tenant: str
    priority: c.JobPriority
    callback_id: str
    offset: int
    more: bool
    ttl_s: float


class JobStore:
    """Takes submissions, and tells what became of them.

    Args:
        client: Redis.
        durability: Says whether what it was given lasts.
        limits: How much the queue takes.
    """

    def __init__(self, client: Redis, durability: Durability, limits: QueueLimits) -> None:
        self._client = client
        self._durability = durability
        self._limits = limits

    async def submit(self, submission: Submission) -> None:
        """Puts sources into the queue, durably.

        Raises: NotReady: Redis is away, or would lose them. Overloaded: there is no room for them.
            Conflict: the job is another one, has another number of sources, or takes no more.
            InvalidRequest: a source that cannot be kept.
        """
        words: list[str | bytes | int] = []
        for source in submission.sources:
            words += [pack_source(source), "", ""]
        await self._submit(submission, words)

    async def requeue(self, letter_ids: Sequence[str], job_id: str, ttl_s: float) -> None:
        """Puts dead letters back into the queue, as a job of their own.

        They keep their place in time: what was changed after they were submitted stays.

        Raises: NotFound: a letter is not there. InvalidRequest: they are not of one collection and
            tenant. As `submit`.
        """
        read = await self._letters(letter_ids)
        first = next(iter(read.values()))
        names = (b"tenant", b"collection")
        for letter_id, fields in read.items():
            if any(fields[one] != first[one] for one in names):
                raise InvalidRequest(
                    f"dead letter {letter_id} is of another collection or tenant than "
                    f"{letter_ids[0]}; put those of each back by themselves",
                    field="letter_ids",
                )
        words: list[str | bytes | int] = []
        for letter_id, fields in read.items():
            words += [fields[b"source"], fields[b"as_of"], letter_id]
        submission = Submission(
            job_id=job_id,
            sources=(),
            collection=first[b"collection"].decode(),
            tenant=first[b"tenant"].decode(),
            priority=c.JobPriority(first[b"priority"].decode() or "normal"),
            callback_id=first[b"callback"].decode(),
            offset=0,
            more=False,
            ttl_s=ttl_s,
        )
        await self._submit(submission, words)

    async def close(self, job_id: str, *, cancel: bool) -> None:
        """Takes nothing more into a job, and cancels what is left of it where that is wanted.

        Raises: NotFound, NotReady.
        """
        there = await run_script(
            self._client,
            scripts.CLOSE,
            [keys.OPEN, keys.job_key(job_id), keys.results_key(job_id)],
            [job_id, int(cancel)],
            self._durability,
        )
        if not there:
            raise _no_job(job_id)

    async def job(self, job_id: str) -> c.Job:
        """Returns a job. Raises: NotFound, NotReady."""
        [job] = await self._jobs([job_id])
        if job is None:
            raise _no_job(job_id)
        return job

    async def jobs(
        self, before_us: int, matches: Mapping[str, str], states: Collection[c.JobState], most: int
    ) -> tuple[list[c.Job], int]:
        """Lists jobs, newest first.

        Args:
            before_us: Those made before this; microseconds since 1970.
            matches: Fields that jobs must have, such as tenant.
            states: Where they must stand; none: anywhere.
            most: How many.
        Returns: The jobs, and where the next page begins; 0: there is none.
        """
        found: list[c.Job] = []
        async with translate_redis_errors(NEEDED_BY):
            names: Any = await self._client.zrevrangebyscore(
                keys.JOBS, f"({before_us}", "-inf", start=0, num=_LOOKED_AT, withscores=True
            )
        for at in range(0, len(names), 100):
            part = names[at : at + 100]
            jobs = await self._jobs([name.decode() for name, _ in part])
            for (_, made_us), job in zip(part, jobs, strict=True):
                if job is None or any(getattr(job, key) != one for key, one in matches.items()):
                    continue
                if states and job.state not in states:
                    continue
                found.append(job)
                if len(found) == most:
                    return found, int(made_us)
        return found, int(names[-1][1]) if len(names) == _LOOKED_AT else 0

    async def results(
        self, job_id: str, first: int, most: int
    ) -> tuple[list[c.IngestResult], int | None]:
        """Returns results of a job by place, from the first one on.

        Returns: Those there are, and where the next page begins; None: there is none.
        Raises: NotFound, NotReady.
        """
        places = range(first, first + most)
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            pipe.hget(keys.job_key(job_id), "units")
            pipe.hmget(keys.results_key(job_id), [str(one) for one in places])
            units, packed = await pipe.execute()
        if units is None:
            raise _no_job(job_id)
        results = [unpack_result(one) for one in packed if one is not None]
        return results, places.stop if places.stop < int(units) else None

    async def dead_letters(
        self, after: str, matches: Mapping[bytes, str], most: int, *, with_source: bool
    ) -> tuple[list[c.DeadLetter], str]:
        """Lists dead letters, oldest first.

        Args:
            after: Letter that they come after; empty: from the first.
            matches: Fields that they must have.
            most: How many.
            with_source: Whether to give what was submitted, too.
        Returns: The letters, and the last one looked at; empty: there is no next page.
        """
        found: list[c.DeadLetter] = []
        looked_at = 0
        while looked_at < _LOOKED_AT:
            async with translate_redis_errors(NEEDED_BY):
                part: Any = await self._client.xrange(
                    keys.DEAD, f"({after}" if after else "-", count=min(most, 200)
                )
            for entry, fields in part:
                after = entry.decode()
                if all(fields[key].decode() == one for key, one in matches.items()):
                    found.append(_letter(after, fields, with_source=with_source))
                    if len(found) == most:
                        return found, after
            looked_at += len(part)
            if len(part) < min(most, 200):
                return found, ""
        return found, after

    async def delete_dead_letters(self, letter_ids: Sequence[str]) -> int:
        """Deletes dead letters; gives how many there were."""
        async with translate_redis_errors(NEEDED_BY):
            return int(await self._client.xdel(keys.DEAD, *letter_ids))

    async def _submit(self, submission: Submission, words: Sequence[str | bytes | int]) -> None:
        limits, count = self._limits, len(words) // 3
        size = sum(len(one) for one in words[::3] if isinstance(one, bytes))
        _check_fits(count, size, limits)
        await self._durability.check()
        job_id, lane = submission.job_id, Lane(submission.priority, submission.tenant)
        answer = await run_script(
            self._client,
            scripts.SUBMIT,
            [
                *(keys.META, keys.TENANTS, keys.LOADS, keys.JOBS, keys.OPEN, keys.DEAD),
                *(lane.key, keys.job_key(job_id), keys.results_key(job_id)),
            ],
            [
                *(job_id, submission.tenant, submission.collection, submission.priority.value),
                *(submission.callback_id, submission.offset, int(submission.more)),
                *(int(submission.ttl_s * 1_000), limits.units, limits.tenant_units, limits.bytes),
                *words,
            ],
            self._durability,
        )
        _check_taken(answer, submission, count, limits)

    async def _jobs(self, job_ids: Sequence[str]) -> list[c.Job | None]:
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            for one in job_ids:
                pipe.hgetall(keys.job_key(one))
                pipe.pexpiretime(keys.job_key(one))
            said = await pipe.execute()
        return [
            decode_job(job_id, fields, expires_ms) if is_job(fields) else None
            for job_id, fields, expires_ms in zip(job_ids, said[::2], said[1::2], strict=True)
        ]

    async def _letters(self, letter_ids: Sequence[str]) -> dict[str, Mapping[bytes, bytes]]:
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            for one in letter_ids:
                pipe.xrange(keys.DEAD, one, one)
            said = await pipe.execute()
        found: dict[str, Mapping[bytes, bytes]] = {}
        for letter_id, entries in zip(letter_ids, said, strict=True):
            if not entries:
                raise _no_letter(letter_id)
            found[letter_id] = entries[0][1]
        return found


def _check_fits(count: int, size: int, limits: QueueLimits) -> None:
    """Refuses what there would never be room for, however long its sender waits."""
    most = min(limits.units, limits.tenant_units)
    if count <= most and size <= limits.bytes:
        return
    raise InvalidRequest(
        f"{count} sources of {size} bytes are more than the queue ever takes: {most} of a tenant, "
        f"{limits.bytes} bytes; send fewer at once, or raise --max-queued, --max-queued-per-tenant "
        "or --max-queued-bytes",
        field="sources",
    )


def _check_taken(
    answer: Sequence[Any], submission: Submission, count: int, limits: QueueLimits
) -> None:
    word, job_id = answer[0].decode(), submission.job_id
    if word == "OK":
        return
    if word == "LETTER":
        raise _no_letter(answer[1].decode())
    if word == "OTHER":
        raise Conflict(
            f"job {job_id} is of another tenant, collection or priority; choose another job_id"
        )
    if word == "CLOSED":
        raise Conflict(f"job {job_id} takes no more sources; submit them as a job of their own")
    if word == "GAP":
        raise Conflict(
            f"job {job_id} has {answer[1]} sources, offset is {submission.offset}; go on from "
            f"there: offset {answer[1]}"
        )
    full = {
        "FULL": f"{answer[1]} of {limits.units} sources are in the queue",
        "MINE": f"tenant {submission.tenant!r} has {answer[1]} of {limits.tenant_units} sources "
        "in the queue",
        "BYTES": f"{answer[1]} of {limits.bytes} bytes are in the queue",
    }[word]
    raise Overloaded(
        f"{full}, and there is no room for {count} more; try again later, or start more workers",
        retry_after_s=_RETRY_AFTER_S,
    )


def _letter(letter_id: str, fields: Mapping[bytes, bytes], *, with_source: bool) -> c.DeadLetter:
    letter = c.DeadLetter(
        letter_id=letter_id,
        job_id=fields[b"job"].decode(),
        collection=fields[b"collection"].decode(),
        tenant=fields[b"tenant"].decode(),
        result=unpack_result(fields[b"result"]),
    )
    return replace(letter, source=unpack_source(fields[b"source"])) if with_source else letter


def _no_job(job_id: str) -> NotFound:
    return NotFound(
        f"there is no job {job_id!r}; its results may have expired: nearline jobs list shows those "
        "there are"
    )


def _no_letter(letter_id: str) -> NotFound:
    return NotFound(
        f"there is no dead letter {letter_id!r}; none was put back: nearline jobs dead shows those "
        "there are"
    )
