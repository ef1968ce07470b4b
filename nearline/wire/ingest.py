"""The queue of documents: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.v1 import ingest_pb2
from nearline.wire.enums import inverse, lookup, numbers_of
from nearline.wire.items import item_from_proto, item_to_proto
from nearline.wire.limits import BATCH, NUMBERS, bounded
from nearline.wire.values import (
    duration,
    same_fields,
    seconds,
    set_duration,
    time_from_proto,
    timestamp,
)

JOB_PRIORITIES = numbers_of(c.JobPriority, ingest_pb2.JobPriority)
JOB_STATES = numbers_of(c.JobState, ingest_pb2.JobState)
OUTCOMES = numbers_of(c.IngestOutcome, ingest_pb2.IngestOutcome)
_PRIORITY_OF = inverse(JOB_PRIORITIES) | {0: c.JobPriority.NORMAL}
_STATE_OF = inverse(JOB_STATES)
_OUTCOME_OF = inverse(OUTCOMES)


def source_to_proto(source: c.IngestSource) -> ingest_pb2.IngestSource:
    """Returns the message of a source.

    Raises: InvalidRequest: a value that no message can hold.
    """
    if isinstance(source, c.Item):
        return ingest_pb2.IngestSource(item=item_to_proto(source))
    try:
        if isinstance(source, c.SourceUrl):
            return ingest_pb2.IngestSource(url=source.url)
        file = ingest_pb2.SourceFile(name=source.name, content=source.content)
        return ingest_pb2.IngestSource(file=file)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "the name of a source has half a surrogate pair; it is not valid Unicode: rename it",
            field="sources",
        ) from error


def source_from_proto(message: ingest_pb2.IngestSource, field: str) -> c.IngestSource:
    """Returns the source of a message.

    Raises: InvalidRequest: the source is empty or malformed; names the field.
    """
    which = message.WhichOneof("source")
    if which == "item":
        return item_from_proto(message.item, f"{field}.item")
    if which == "file":
        return c.SourceFile(message.file.name, message.file.content)
    if which == "url":
        return c.SourceUrl(message.url)
    raise InvalidRequest(f"{field} has neither item, file nor url; set one", field=field)


def submit_request(
    sources: Iterable[c.IngestSource],
    *,
    collection: str,
    tenant: str,
    priority: c.JobPriority,
    callback_id: str,
    job_id: str,
    offset: int,
    more: bool,
    result_ttl_s: float | None,
) -> ingest_pb2.SubmitRequest:
    """Returns the request to submit sources.

    Raises: InvalidRequest: a value that no message can hold.
    """
    messages = [source_to_proto(one) for one in sources]
    if offset < 0:
        raise InvalidRequest(f"offset is {offset}; it counts sources, from 0", field="offset")
    try:
        request = ingest_pb2.SubmitRequest(
            collection=collection,
            tenant=tenant,
            priority=JOB_PRIORITIES[priority],
            callback_id=callback_id,
            job_id=job_id,
            offset=offset,
            sources=messages,
            more=more,
        )
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "a name in the request has half a surrogate pair; it is not valid Unicode"
        ) from error
    if result_ttl_s is not None:
        set_duration(request.result_ttl, result_ttl_s)
    return request


def sources_of(request: ingest_pb2.SubmitRequest) -> list[c.IngestSource]:
    """Returns the sources of a request.

    Raises: InvalidRequest: a source is malformed; names it.
    """
    sources = bounded(request.sources, "sources", BATCH)
    return [source_from_proto(one, f"sources[{at}]") for at, one in enumerate(sources)]


def priority_from_proto(number: int) -> c.JobPriority:
    """Returns the priority; unspecified is normal."""
    return lookup(_PRIORITY_OF, number, "priority")


def states_from_proto(numbers: Sequence[int]) -> frozenset[c.JobState]:
    """Returns the states. Raises: InvalidRequest: an unknown number."""
    return frozenset(
        lookup(_STATE_OF, one, "states") for one in bounded(numbers, "states", NUMBERS)
    )


def result_ttl_of(request: ingest_pb2.SubmitRequest) -> float | None:
    """Returns the retention of results in seconds; None for the service's default."""
    if not request.HasField("result_ttl"):
        return None
    return seconds(request.result_ttl)


def job_to_proto(job: c.Job) -> ingest_pb2.Job:
    """Returns the message of a job."""
    converted = {
        "priority": JOB_PRIORITIES[job.priority],
        "state": JOB_STATES[job.state],
        "create_time": timestamp(job.create_time),
        "update_time": timestamp(job.update_time),
        "finish_time": timestamp(job.finish_time),
        "expire_time": timestamp(job.expire_time),
    }
    return ingest_pb2.Job(**same_fields(job, c.Job) | converted)


def job_from_proto(message: ingest_pb2.Job) -> c.Job:
    """Returns the job of a message."""
    converted = {
        "priority": priority_from_proto(message.priority),
        "state": lookup(_STATE_OF, message.state, "job.state"),
        "create_time": time_from_proto(message.create_time, "create_time"),
        "update_time": time_from_proto(message.update_time, "update_time"),
        "finish_time": time_from_proto(message.finish_time, "finish_time")
        if message.HasField("finish_time")
        else None,
        "expire_time": time_from_proto(message.expire_time, "expire_time")
        if message.HasField("expire_time")
        else None,
    }
    return c.Job(**same_fields(message, c.Job) | converted)


def ingest_result_to_proto(result: c.IngestResult) -> ingest_pb2.IngestResult:
    """Returns the message of a result."""
    converted = {"outcome": OUTCOMES[result.outcome], "time": timestamp(result.time)}
    return ingest_pb2.IngestResult(**same_fields(result, c.IngestResult) | converted)


def ingest_result_from_proto(message: ingest_pb2.IngestResult) -> c.IngestResult:
    """Returns the result of a message."""
    converted = {
        "outcome": lookup(_OUTCOME_OF, message.outcome, "result.outcome"),
        "time": time_from_proto(message.time, "time"),
    }
    return c.IngestResult(**same_fields(message, c.IngestResult) | converted)


def letter_to_proto(letter: c.DeadLetter) -> ingest_pb2.DeadLetter:
    """Returns the message of a dead letter."""
    converted = {
        "result": ingest_result_to_proto(letter.result),
        "source": None if letter.source is None else source_to_proto(letter.source),
    }
    return ingest_pb2.DeadLetter(**same_fields(letter, c.DeadLetter) | converted)


def letter_from_proto(message: ingest_pb2.DeadLetter) -> c.DeadLetter:
    """Returns the dead letter of a message."""
    source = source_from_proto(message.source, "source") if message.HasField("source") else None
    converted = {"result": ingest_result_from_proto(message.result), "source": source}
    return c.DeadLetter(**same_fields(message, c.DeadLetter) | converted)


def queue_response(state: c.QueueState) -> ingest_pb2.GetQueueResponse:
    """Returns the message of the state of the queue."""
    return ingest_pb2.GetQueueResponse(
        waiting=state.waiting,
        in_hand=state.in_hand,
        delayed=state.delayed,
        dead=state.dead,
        oldest_age=duration(state.oldest_age_s),
        documents_per_s=state.documents_per_s,
        workers=[
            ingest_pb2.IngestWorker(
                **same_fields(one, c.IngestWorker) | {"start_time": timestamp(one.start_time)}
            )
            for one in state.workers
        ],
        bytes=state.bytes,
    )


def queue_state(message: ingest_pb2.GetQueueResponse) -> c.QueueState:
    """Returns the queue state of a message."""
    return c.QueueState(
        waiting=message.waiting,
        in_hand=message.in_hand,
        delayed=message.delayed,
        dead=message.dead,
        oldest_age_s=seconds(message.oldest_age),
        documents_per_s=message.documents_per_s,
        workers=[
            c.IngestWorker(
                worker_id=one.worker_id,
                in_hand=one.in_hand,
                documents_per_s=one.documents_per_s,
                start_time=time_from_proto(one.start_time, "start_time"),
            )
            for one in message.workers
        ],
        bytes=message.bytes,
    )
