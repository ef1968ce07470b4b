"""Processes the units of a batch until each is settled or given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from index_builder.documents.detected_lists import DetectedLists
from index_builder.ingest import metrics
from index_builder.ingest.codec import source_name
from index_builder.ingest.document_writer import (
    Document,
    DocumentWriter,
    UnitEnd,
    dead_letter,
    end_of_error,
)
from index_builder.ingest.fetcher import LIMIT_S, fetch
from index_builder.ingest.file_reader import FileDocument, read_document, read_documents
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.records import ALONE_AFTER, MAX_LOSSES, Settlement, Unit
from index_builder.ingest.table_columns import ColumnsOf, default_columns
from index_builder.readers.formats import is_one_document
from index_builder.readers.sandbox import SandboxReader
from nearline import contract as c
from nearline.access.caller import EVERY, Caller
from nearline.access.method_guard import acting_for
from nearline.access.rights import Right
from nearline.errors import FeedBlocked, InternalError, InvalidRequest, NearlineError
from nearline.retry import Backoff
from retrieval.writes.feed_block import FeedBlock

_log = logging.getLogger(__name__)
_PAGE = 200
_QUEUE_FULL_RETRY_S = 2.0
_LIST_REMEDY = ", unless the collection has it as an attribute of kind string"
# The caller in the audit log when a worker writes what a tenant submitted.
_NAME = "ingest queue"


class RetryPolicy(NamedTuple):
    """How often a document may fail, and the delays between attempts; see `WorkerSettings`."""

    attempts: int
    backoff: Backoff


class UnitProcessor:
    """Processes units.

    Args:
        queue: The queue that the units were taken from.
        writer: Writes documents.
        retries: How often documents may fail.
        allowed: Prefixes of URLs that may be read.
        parse_s: Seconds that reading a file may take until a document or the next rows are there.
        fetch_s: Seconds that fetching a file by URL may take.
        feed_block: Delays files of rows while Redis is nearly full. Optional; None disables this.
        columns: Returns how tables for a collection are read.
    """

    def __init__(
        self,
        queue: LeaseQueue,
        writer: DocumentWriter,
        retries: RetryPolicy,
        allowed: Sequence[str],
        parse_s: float,
        fetch_s: float = LIMIT_S,
        feed_block: FeedBlock | None = None,
        columns: ColumnsOf = default_columns,
    ) -> None:
        self._feed_block = feed_block
        self._columns = columns
        self._queue = queue
        self._writer = writer
        self._retries = retries
        self._allowed = allowed
        self._fetch_s = fetch_s
        self._parse_s = parse_s
        # A sandbox process reads one file at a time; there is one for each batch in progress.
        self._idle: list[SandboxReader] = []
        self._sandboxes: list[SandboxReader] = []

    def close(self) -> None:
        """Ends the sandbox processes."""
        for one in self._sandboxes:
            one.close()

    @contextlib.contextmanager
    def _sandbox(self) -> Iterator[SandboxReader]:
        if not self._idle:
            self._idle.append(SandboxReader(self._parse_s))
            self._sandboxes += self._idle
        sandbox = self._idle.pop()
        try:
            yield sandbox
        finally:
            self._idle.append(sandbox)

    async def process(self, units: Sequence[Unit]) -> int:
        """Processes units until each is settled or given back; returns how many documents finished.

        Args:
            units: Units that this worker holds.
        Raises: NotReady: Redis is unavailable; unsettled units return to the queue.
        """
        cancelled = await self._queue.begin(one.job_id for one in units)
        ends: list[UnitEnd] = []
        batch: list[Unit] = []
        for unit in units:
            settled = _cancelled(unit) if unit.job_id in cancelled else _known_end(unit)
            if settled is not None:
                ends.append(settled)
            else:
                batch.append(unit)
        return await self._end(ends) + await self._process(batch)

    async def _process(self, units: Sequence[Unit]) -> int:
        # Whole items first: they must not wait until the servers of files have answered.
        done = await self._write(
            [Document(one, one.source) for one in units if isinstance(one.source, c.Item)]
        )
        documents: list[Document] = []
        for unit in units:
            if isinstance(unit.source, c.Item):
                continue
            if await self._queue.begin([unit.job_id]):
                # Its job was cancelled while earlier files were read.
                done += await self._end([_cancelled(unit)])
                continue
            try:
                found = await self._read(unit)
            except NearlineError as error:
                done += await self._end([end_of_error(unit, source_name(unit.source), error)])
                continue
            except Exception as error:
                # A bug triggered by one file must not block the units taken with it.
                _log.exception("file not read", extra={"job_id": unit.job_id, "place": unit.place})
                bug = InternalError(
                    f"reading the file failed with an internal error ({type(error).__name__}); see "
                    "the worker's log"
                )
                done += await self._end([end_of_error(unit, source_name(unit.source), bug)])
                continue
            if found is not None:
                documents.append(Document(unit, found))
        return done + await self._write(documents)

    async def _write(self, documents: list[Document]) -> int:
        done = 0
        documents.sort(key=_owner)
        for (tenant, collection), part in groupby(documents, _owner):
            caller = Caller(tenant, rights={collection: Right.WRITE}, name=_NAME)
            # What an operator submitted, this worker writes on its own behalf.
            with contextlib.nullcontext() if tenant == EVERY else acting_for(caller):
                ends = await self._writer.write(collection, list(part))
            done += await self._end(ends)
        return done

    async def _end(self, ends: Iterable[UnitEnd]) -> int:
        """Settles units, and gives back failed ones that are worth a retry."""
        settlements: list[Settlement] = []
        waits: dict[Unit, float] = {}
        for end in ends:
            if isinstance(end, Settlement):
                settlements.append(end)
                continue
            unit = end.unit
            if unit.failed + 1 < self._retries.attempts:
                waits[unit] = self._retries.backoff.delay_s(unit.failed)
                continue
            settlements.append(
                Settlement(
                    unit=unit,
                    outcome=c.IngestOutcome.DEAD,
                    document_id=source_name(unit.source),
                    reason=end.reason,
                    message=f"{end.message} (tried {unit.failed + 1} times)",
                )
            )
        metrics.retries.inc(await self._queue.give_back(waits, failed=True))
        settled = await self._queue.settle(settlements)
        for one in settled:
            metrics.settled.labels(one.outcome.value).inc()
        return sum(one.outcome is not c.IngestOutcome.EXPANDED for one in settled)

    async def _read(self, unit: Unit) -> c.Item | None:
        """Returns a file's document if it is one; otherwise adds its documents to the queue."""
        name = source_name(unit.source)
        suffix = PurePosixPath(urlsplit(name).path if "://" in name else name).suffix
        if not is_one_document(f"file{suffix}") and not await self._may_add_rows(unit):
            return None
        with tempfile.TemporaryDirectory(prefix="nearline-ingest-") as folder:
            path = Path(folder) / f"file{suffix}"
            await asyncio.to_thread(self._copy, unit.source, path)
            with self._sandbox() as sandbox:
                if is_one_document(path.name):
                    return await asyncio.to_thread(read_document, path, name, sandbox)
                await self._expand(unit, path, name, sandbox)
        return None

    def _copy(self, source: c.IngestSource, path: Path) -> None:
        if isinstance(source, c.SourceUrl):
            fetch(source.url, self._allowed, path, self._fetch_s)
        elif isinstance(source, c.SourceFile):
            path.write_bytes(source.content)

    async def _expand(self, unit: Unit, path: Path, name: str, sandbox: SandboxReader) -> None:
        read = await self._queue.read_so_far(unit)
        columns = await self._columns(unit.collection)
        lists = DetectedLists(columns.declared)
        with contextlib.closing(read_documents(path, name, sandbox, columns, lists)) as documents:
            # Documents added by an earlier attempt are skipped.
            await asyncio.to_thread(_skip, documents, read)
            page: list[FileDocument] = []
            while page := page or await asyncio.to_thread(lambda: list(islice(documents, _PAGE))):
                if not await self._may_add_rows(unit):
                    return
                part = page
                reached = await self._queue.expand(unit, read, part)
                while reached is not None and reached.full and len(part) > 1:
                    # A whole page may exceed the capacity of the queue.
                    part = part[: len(part) // 2]
                    reached = await self._queue.expand(unit, read, part)
                if reached is None:
                    return
                if reached.full:
                    # Another worker may make room; workers must not wait for each other.
                    await self._queue.give_back({unit: _QUEUE_FULL_RETRY_S}, failed=False)
                    return
                if reached.read != read + len(part):
                    # Another worker considered this one lost, and has taken over.
                    return
                read, page = reached.read, page[len(part) :]
        expanded = c.IngestOutcome.EXPANDED
        notes = "; ".join(f"{one}{_LIST_REMEDY}" for one in lists.found)
        await self._end([Settlement(unit=unit, outcome=expanded, document_id=name, message=notes)])

    async def _may_add_rows(self, unit: Unit) -> bool:
        """Returns whether Redis has room for more rows; if not, gives their file back for later."""
        try:
            if self._feed_block is not None:
                self._feed_block.check("rows")
        except FeedBlocked:
            await self._queue.give_back({unit: _QUEUE_FULL_RETRY_S}, failed=False)
            return False
        return True


def _owner(document: Document) -> tuple[str, str]:
    """Returns tenant and collection of a document."""
    return document.unit.lane.tenant, document.unit.collection


def _skip(documents: Iterator[FileDocument], count: int) -> None:
    next(islice(documents, count, count), None)


def _cancelled(unit: Unit) -> Settlement:
    name = source_name(unit.source)
    return Settlement(unit=unit, outcome=c.IngestOutcome.CANCELLED, document_id=name)


def _known_end(unit: Unit) -> Settlement | None:
    """Returns the settlement of a unit that needs no processing; None if it must be processed."""
    name = source_name(unit.source)
    if unit.error:
        return dead_letter(unit, name, InvalidRequest(unit.error))
    if unit.losses >= MAX_LOSSES:
        return dead_letter(
            unit,
            name,
            InternalError(
                f"{unit.losses} workers were lost while processing it, "
                f"{unit.losses - ALONE_AFTER} of them with no other work; check the logs of the "
                "workers, and omit or split the document"
            ),
        )
    return None
