"""What a worker does with the units of a batch, until each is settled or given back."""

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

from index_builder.ingest import metrics
from index_builder.ingest.codec import source_name
from index_builder.ingest.fetcher import fetch
from index_builder.ingest.file_reader import FileDocument, read_document, read_documents
from index_builder.ingest.item_writer import (
    Document,
    DocumentWriter,
    UnitEnd,
    dead_letter,
    end_of_error,
)
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.records import Settlement, Unit
from index_builder.readers.corpus import is_one_document
from index_builder.readers.sandbox import SandboxReader
from nearline import contract as c
from nearline.errors import InternalError, InvalidRequest, NearlineError
from nearline.retry import Backoff

_log = logging.getLogger(__name__)
# A unit whose worker was lost so often is worked on by itself: should it be what kills workers, it
# takes no others with it.
ALONE_AFTER = 3
# And one whose worker was lost so often again while it was by itself is dead.
LOST_AT_MOST = ALONE_AFTER + 3
_PAGE = 200
_FULL_S = 2.0


class RetryPolicy(NamedTuple):
    """How often a document may fail, and how long it then waits; see `WorkerSettings`."""

    attempts: int
    backoff: Backoff


class UnitProcessor:
    """Processes units.

    Args:
        work: Where they came from.
        indexer: Writes documents.
        retries: How often they may fail.
        allowed: What addresses of files must begin with.
        parse_s: Seconds that reading an HTML or PDF file may take.
    """

    def __init__(
        self,
        work: LeaseQueue,
        indexer: DocumentWriter,
        retries: RetryPolicy,
        allowed: Sequence[str],
        parse_s: float,
    ) -> None:
        self._work = work
        self._indexer = indexer
        self._retries = retries
        self._allowed = allowed
        self._apart = SandboxReader(parse_s)
        # Its process answers one file after another.
        self._parsing = asyncio.Lock()

    def close(self) -> None:
        """Ends the process that parses."""
        self._apart.close()

    async def process(self, units: Sequence[Unit]) -> int:
        """Works on units until each is settled or given back; gives how many documents ended.

        Args:
            units: Held by this worker.
        Raises: NotReady: Redis is away; what is not settled comes again.
        """
        cancelled = await self._work.begin(one.job_id for one in units)
        ends: list[UnitEnd] = []
        together: list[Unit] = []
        for unit in units:
            settled = _known_end(unit, unit.job_id in cancelled)
            if settled is not None:
                ends.append(settled)
            elif unit.losses < ALONE_AFTER:
                together.append(unit)
        done = await self._end(ends)
        done += await self._process(together)
        for unit in units:
            if ALONE_AFTER <= unit.losses < LOST_AT_MOST and unit.job_id not in cancelled:
                done += await self._process([unit])
        return done

    async def _process(self, units: Sequence[Unit]) -> int:
        documents: list[Document] = []
        done = 0
        for unit in units:
            if isinstance(unit.source, c.Item):
                documents.append(Document(unit, unit.source))
                continue
            try:
                found = await self._read(unit)
            except NearlineError as error:
                done += await self._end([end_of_error(unit, source_name(unit.source), error)])
                continue
            except Exception as error:
                # A bug that one file meets must not hold up what was taken with it.
                _log.exception("file not read", extra={"job_id": unit.job_id, "place": unit.place})
                bug = InternalError(
                    f"the file cannot be read for an error of ours ({type(error).__name__}); the "
                    "worker's log has it"
                )
                done += await self._end([end_of_error(unit, source_name(unit.source), bug)])
                continue
            if found is not None:
                documents.append(Document(unit, found))
        documents.sort(key=lambda one: one.unit.collection)
        for collection, part in groupby(documents, lambda one: one.unit.collection):
            done += await self._end(await self._indexer.index(collection, list(part)))
        return done

    async def _end(self, ends: Iterable[UnitEnd]) -> int:
        """Settles units, and gives back those that failed and may not fail the next time."""
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
        metrics.retries.inc(await self._work.give_back(waits, failed=True))
        settled = await self._work.settle(settlements)
        for one in settled:
            metrics.settled.labels(one.outcome.value).inc()
        return sum(one.outcome is not c.IngestOutcome.EXPANDED for one in settled)

    async def _read(self, unit: Unit) -> c.Item | None:
        """Returns the document of a file that is one; of another puts its documents in the
        queue."""
        name = source_name(unit.source)
        suffix = PurePosixPath(urlsplit(name).path if "://" in name else name).suffix
        with tempfile.TemporaryDirectory(prefix="nearline-ingest-") as folder:
            path = Path(folder) / f"file{suffix}"
            await asyncio.to_thread(self._copy, unit.source, path)
            if is_one_document(path.name):
                async with self._parsing:
                    return await asyncio.to_thread(read_document, path, name, self._apart)
            await self._expand(unit, path, name)
        return None

    def _copy(self, source: c.IngestSource, path: Path) -> None:
        if isinstance(source, c.SourceUrl):
            fetch(source.url, self._allowed, path)
        elif isinstance(source, c.SourceFile):
            path.write_bytes(source.content)

    async def _expand(self, unit: Unit, path: Path, name: str) -> None:
        read = await self._work.read_so_far(unit)
        with contextlib.closing(read_documents(path, name, self._apart)) as documents:
            # What an earlier attempt put into the queue is passed over.
            await asyncio.to_thread(_skip, documents, read)
            page: list[FileDocument] = []
            while page := page or await asyncio.to_thread(lambda: list(islice(documents, _PAGE))):
                part = page
                reached = await self._work.expand(unit, read, part)
                while reached is not None and reached.full and len(part) > 1:
                    # A whole page may be more than the queue has room for at any time.
                    part = part[: len(part) // 2]
                    reached = await self._work.expand(unit, read, part)
                if reached is None:
                    return
                if reached.full:
                    # Whoever has a place meanwhile may make room: workers must not wait for each
                    # other.
                    await self._work.give_back({unit: _FULL_S}, failed=False)
                    return
                if reached.read != read + len(part):
                    # Another worker took it for lost, and is at it.
                    return
                read, page = reached.read, page[len(part) :]
        await self._end([Settlement(unit=unit, outcome=c.IngestOutcome.EXPANDED, document_id=name)])


def _skip(documents: Iterator[FileDocument], count: int) -> None:
    next(islice(documents, count, count), None)


def _known_end(unit: Unit, cancelled: bool) -> Settlement | None:
    """Returns the end of a unit that needs no work; None: it needs some."""
    name = source_name(unit.source)
    if cancelled:
        return Settlement(unit=unit, outcome=c.IngestOutcome.CANCELLED, document_id=name)
    if unit.error:
        return dead_letter(unit, name, InvalidRequest(unit.error))
    if unit.losses >= LOST_AT_MOST:
        return dead_letter(
            unit,
            name,
            InternalError(
                f"its worker was lost {unit.losses} times, of these "
                f"{unit.losses - ALONE_AFTER} with nothing else in hand; look into the logs of the "
                "workers, and leave it out or cut it"
            ),
        )
    return None
