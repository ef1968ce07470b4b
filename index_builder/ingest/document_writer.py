"""Writes documents to collections in batches, and determines the outcome of each."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from index_builder.ingest.records import LogPosition, Settlement, Unit
from nearline import contract as c
from nearline.errors import (
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotReady,
    Overloaded,
    PermissionDenied,
)
from nearline.items.sizes import check_sizes
from nearline.retry import retry
from nearline.store.snapshot import partition_of
from retrieval.protocols.watermark import decode_watermark

_log = logging.getLogger(__name__)
# A message may have 64 MiB; the texts of one call stay well below that.
_CALL_CHARACTERS = 4 << 20
_TIMEOUT_S = 120.0
_RETRY_S = 1.0
_TIMES_FIELD = "as_of"
# Errors that a single document, or the size of the call, may cause.
_SPLIT_ON = (InvalidRequest, InternalError, DeadlineExceeded, Conflict)


class Document(NamedTuple):
    """A unit of the queue, and its item."""

    unit: Unit
    item: c.Item


class Failure(NamedTuple):
    """A failed unit that is worth a retry. reason, message: As in ErrorInfo."""

    unit: Unit
    reason: str
    message: str


UnitEnd: TypeAlias = Settlement | Failure


class DocumentWriter:
    """Writes documents with an `ItemWriter`; if a call fails, finds the document at fault.

    While the service is unavailable or overloaded the writer waits, since that is no fault of the
    documents; likewise while it finds that their times, set by Redis, are in the future.

    Args:
        writer: Writes items, with the embedder's bulk lane.
    """

    def __init__(self, writer: c.ItemWriter) -> None:
        self._writer = writer

    async def write(self, collection: str, documents: Sequence[Document]) -> list[UnitEnd]:
        """Writes documents of one collection; returns the outcome of each."""
        newest, ends = _newest(documents)
        newest, refused = _small_enough(newest)
        ends += refused
        for call in _calls(newest):
            ends += await self._write_call(collection, call)
        return ends

    async def _write_call(self, collection: str, documents: Sequence[Document]) -> list[UnitEnd]:
        try:
            reply = await self._upsert(collection, documents)
        except NearlineError as error:
            if len(documents) == 1 or not isinstance(error, _SPLIT_ON):
                return [end_of_error(one.unit, one.item.id, error) for one in documents]
            # A single document is faulty, or the call is too large: retry with smaller calls.
            middle = len(documents) // 2
            first = await self._write_call(collection, documents[:middle])
            return first + await self._write_call(collection, documents[middle:])
        mark = decode_watermark(reply.watermark)
        log_id = "" if mark is None else mark.log_id
        return [
            _end_of_result(one.unit, result, log_id)
            for one, result in zip(documents, reply.results, strict=True)
        ]

    async def _upsert(self, collection: str, documents: Sequence[Document]) -> c.WriteReply:
        async def upsert() -> c.WriteReply:
            try:
                return await self._writer.upsert_items(
                    [one.item for one in documents],
                    collection=collection,
                    as_of={one.item.id: one.unit.as_of for one in documents},
                    lane=c.Lane.BULK,
                    timeout_s=_TIMEOUT_S,
                )
            except InvalidRequest as error:
                if error.field != _TIMES_FIELD:
                    raise
                # The times come from Redis: documents are not to blame for its clock.
                _log.warning("clocks differ; waiting", extra={"reason": error.message})
                raise NotReady(error.message) from error

        return await retry(upsert, on=(NotReady, Overloaded), delays=itertools.repeat(_RETRY_S))


def dead_letter(unit: Unit, document_id: str, error: NearlineError) -> Settlement:
    """Returns the settlement of a unit that can never succeed."""
    return Settlement(
        unit=unit,
        outcome=c.IngestOutcome.DEAD,
        document_id=document_id,
        reason=error.reason,
        message=error.message,
    )


def _newest(documents: Sequence[Document]) -> tuple[list[Document], list[UnitEnd]]:
    """Returns, for each id, the document that was submitted last; it supersedes the others."""
    by_id: dict[str, Document] = {}
    older: list[Document] = []
    for one in documents:
        known = by_id.get(one.item.id)
        if known is None or known.unit.as_of < one.unit.as_of:
            by_id[one.item.id] = one
            older += [] if known is None else [known]
        else:
            older.append(one)
    ends: list[UnitEnd] = [
        Settlement(unit=one.unit, outcome=c.IngestOutcome.SUPERSEDED, document_id=one.item.id)
        for one in older
    ]
    return list(by_id.values()), ends


def _small_enough(documents: Sequence[Document]) -> tuple[list[Document], list[UnitEnd]]:
    """Returns the documents that may be written, and the ends of those that are too large.

    One that exceeds a message would otherwise look like an overloaded service.
    """
    small: list[Document] = []
    ends: list[UnitEnd] = []
    for one in documents:
        try:
            check_sizes(one.item)
        except InvalidRequest as error:
            ends.append(dead_letter(one.unit, one.item.id, error))
        else:
            small.append(one)
    return small, ends


def _calls(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Yields the documents in calls within the limits of a message."""
    call: list[Document] = []
    characters = 0
    for one in documents:
        size = len(one.item.text) + len(one.item.title)
        if call and (characters + size > _CALL_CHARACTERS or len(call) == c.MAX_BATCH):
            yield call
            call, characters = [], 0
        call.append(one)
        characters += size
    if call:
        yield call


_DONE: Mapping[c.WriteOutcome, c.IngestOutcome] = {
    c.WriteOutcome.APPLIED: c.IngestOutcome.INDEXED,
    c.WriteOutcome.REPLACED: c.IngestOutcome.INDEXED,
    # Written by a worker that was lost before it could settle the unit.
    c.WriteOutcome.UNCHANGED: c.IngestOutcome.INDEXED,
    c.WriteOutcome.SUPERSEDED: c.IngestOutcome.SUPERSEDED,
}


def _end_of_result(unit: Unit, result: c.WriteResult, log_id: str) -> UnitEnd:
    outcome = _DONE.get(result.outcome)
    if outcome is None:
        for kind in (InvalidRequest, PermissionDenied):
            if result.reason == kind.reason:
                return dead_letter(unit, result.id, kind(result.message))
        return Failure(unit, result.reason, result.message)
    indexed = None
    if outcome is c.IngestOutcome.INDEXED:
        indexed = LogPosition(log_id, partition_of(result.id), result.version)
    return Settlement(unit=unit, outcome=outcome, document_id=result.id, indexed=indexed)


def end_of_error(unit: Unit, document_id: str, error: NearlineError) -> UnitEnd:
    """Returns the outcome of an error: a dead letter if a retry cannot help, else a failure."""
    if isinstance(error, InvalidRequest):
        return dead_letter(unit, document_id, error)
    return Failure(unit, error.reason, error.message)
