"""The lineage of a build: the current snapshot, and the archived changes that it lacks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_builder.documents.records import SourceCount
from index_builder.options.build_options import BuildOptions, Mode
from nearline.errors import Conflict, InvalidRequest, NotFound, NotReady, SnapshotMismatch
from nearline.internal.v1 import change_pb2
from nearline.store.durable import store_errors, write_durably
from nearline.store.snapshot import Store
from nearline.store.work import BuildWork
from nearline.times import from_us, to_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive, archive_changes
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.changelog.retention import log_lineage
from retrieval.changelog.start_position import start_position, watermark_of
from retrieval.protocols.watermark import Watermark

_NOTE = "begun.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The snapshot and the changes that a build continues.

    parent: The current snapshot; None if there is none.
    watermark: End of the archived log when the build began; None if there is no log.
    import_times_us: Import time of each source, microseconds since 1970.
    begun_us: When the build began, likewise: documents that expired before are left out.
    notes: Messages for the user.
    """

    store: Store
    collection: str
    mode: Mode
    parent: snapshot_pb2.Manifest | None
    watermark: Watermark | None
    log: ChangeLog | None = None
    import_times_us: Sequence[int] = ()
    begun_us: int = 0
    notes: Sequence[str] = ()

    def key(self) -> list[str]:
        """Returns the part of the work key that a resumed build must share.

        The key does not include the watermark: a resumed build continues from its original
        watermark, see `resumed`.
        """
        parent = self.parent.snapshot_id if self.parent else ""
        return [parent, self.mode.value, self.watermark.log_id if self.watermark else ""]

    def resumed(self, folder: Path, work: BuildWork | None) -> Lineage:
        """Returns the lineage of the first run of a build, or records this one as that; blocks.

        Changes since the first run are not part of the snapshot; replicas replay them.

        Args:
            folder: Work folder.
            work: Work of the build in the store, which other machines see. Optional.
        """
        note = folder / _NOTE
        if note.exists():
            known = json.loads(note.read_text("utf-8"))
        else:
            known = {
                "begun_us": self.begun_us,
                "places_us": self.import_times_us,
                "positions": self.watermark.positions if self.watermark else (),
            }
            if work is not None:
                known = work.begin(known)
            with store_errors(note):
                write_durably(note, json.dumps(known).encode())
        watermark = self.watermark
        if watermark is not None:
            watermark = Watermark(watermark.log_id, tuple(known["positions"]))
        return replace(
            self,
            watermark=watermark,
            import_times_us=known["places_us"],
            begun_us=known.get("begun_us", self.begun_us),
        )

    def changes(self) -> Iterator[ChangeEntry]:
        """Yields the archived changes that the parent lacks, up to the watermark.

        Raises: SnapshotMismatch: the parent's log is not an ancestor of the current log, or the
            changes are no longer archived. SnapshotCorrupt.
        """
        if self.watermark is None:
            return
        logs = log_lineage(self.store, self.collection)
        start = watermark_of(self.parent) if self.parent is not None else Watermark("")
        if start.log_id and start.log_id not in logs:
            assert self.parent is not None
            raise SnapshotMismatch(
                f"snapshot {self.parent.snapshot_id} belongs to change log {start.log_id}, "
                f"but the current log {self.watermark.log_id} does not continue it; promote a "
                "snapshot of the current log or of one of its ancestors"
            )
        for log_id in logs[logs.index(start.log_id) if start.log_id else 0 :]:
            here = start if start.log_id == log_id else Watermark(log_id)
            end = self.watermark if log_id == self.watermark.log_id else None
            yield from Archive(self.store, self.collection, log_id).entries(here, end)

    def sources(self, read: Sequence[SourceCount]) -> list[snapshot_pb2.Source]:
        """Returns the sources for the manifest, with import times, including inherited ones."""
        found = [
            source.message(import_time_us)
            for source, import_time_us in zip(read, self.import_times_us, strict=True)
        ]
        if self.mode is Mode.MERGE and self.parent is not None:
            replaced = {source.sha256 for source in read if source.sha256}
            for inherited in self.parent.sources:
                if inherited.sha256 not in replaced:
                    source = snapshot_pb2.Source()
                    source.CopyFrom(inherited)
                    import_time_us = _recorded_import_time(self.parent, inherited)
                    source.import_time.FromMicroseconds(import_time_us)
                    found.append(source)
        return found

    def latest_import_us(self) -> int:
        """Returns the latest import time of the parent, which precedes all changes it lacks."""
        if self.parent is None:
            return 0
        return max(
            (_recorded_import_time(self.parent, one) for one in self.parent.sources), default=0
        )

    def check_current(self) -> int:
        """Raises Conflict if the parent is no longer current: a merge would lose changes.

        Returns: Epoch that must be current at the promotion; 0 if any epoch may be.
        """
        if self.mode is Mode.REPLACE:
            return 0
        parent = self.parent.snapshot_id if self.parent else ""
        current, epoch = _current(self.store, self.collection)
        now = current.snapshot_id if current else ""
        if now != parent:
            raise Conflict(
                f"{now or 'nothing'} is current in {self.collection!r}, but this build continues "
                f"{parent or 'nothing'}; run it again"
            )
        return epoch

    async def check_replayable(self, manifest: snapshot_pb2.Manifest) -> None:
        """Raises Conflict if replicas could not replay the changes since; see `start_position`.

        Replicas cannot replay the changes if the log was trimmed past the end of the build.
        """
        if self.log is None or self.watermark is None:
            return
        try:
            state = await self.log.state()
        except NotReady:
            return  # Replicas check again before they serve the snapshot.
        try:
            start_position(manifest, log_lineage(self.store, self.collection), state)
        except SnapshotMismatch as error:
            # A new build reads the missing changes from the archive.
            raise Conflict(
                f"{error.message}; the log was trimmed in the meantime; run the build again"
            ) from error


async def trace_lineage(
    options: BuildOptions, sources: Sequence[SourceCount], log: ChangeLog | None
) -> Lineage | None:
    """Finds what a build continues, and archives the log up to now.

    Args:
        options: Options of the build.
        sources: Sources to import.
        log: The change log; None if its location is unknown.
    Returns: None if there is nothing to continue: no change log, and a build that replaces
        documents and training data.
    Raises: InvalidRequest: the collection has a change log, but `log` is None. NotReady: the log is
        unavailable and was never archived. As `archive_changes`.
    """
    # Taken before archiving, so that no archived change precedes an import "now".
    now_us = time.time_ns() // 1_000
    store = Store.open(options.store)
    record = store.log_in_force(options.collection)
    appends = options.training is not None and options.training.append
    if record is None and options.mode is Mode.REPLACE and not appends:
        return None
    parent = _current(store, options.collection)[0]
    notes: list[str] = []
    watermark = None
    if record is not None:
        if log is None:
            raise InvalidRequest(
                f"collection {options.collection!r} has a change log, whose changes belong in "
                "every snapshot; say where it is with --redis URL",
                field="redis",
            )
        watermark = await _archive_up_to_now(store, log, record, notes)
    return Lineage(
        store=store,
        collection=options.collection,
        mode=options.mode,
        parent=parent,
        watermark=watermark,
        log=log,
        import_times_us=[
            _import_time_of(source, parent, options, now_us, notes) for source in sources
        ],
        begun_us=now_us,
        notes=notes,
    )


async def _archive_up_to_now(
    store: Store, log: ChangeLog, record: change_pb2.LogRecord, notes: list[str]
) -> Watermark:
    try:
        return (await archive_changes(store, log)).end()
    except NotReady as error:
        archive = Archive(store, log.collection, record.log_id)
        if not archive.numbers():
            raise NotReady(
                f"the change log of {log.collection!r} is unavailable, and was never archived: "
                f"{error.message}",
                retry_after_s=error.retry_after_s,
            ) from error
        notes.append(
            f"the change log is away ({error.message}): the snapshot contains the archived "
            "changes, and replicas replay the rest"
        )
        _log.warning("building from the archive", extra={"why": error.message})
        return archive.end()


def _current(store: Store, collection: str) -> tuple[snapshot_pb2.Manifest | None, int]:
    try:
        record = store.alias_in_force(collection)
    except NotFound:
        return None, 0
    return store.manifest(collection, record.current), record.epoch


def _import_time_of(
    source: SourceCount,
    parent: snapshot_pb2.Manifest | None,
    options: BuildOptions,
    now_us: int,
    notes: list[str],
) -> int:
    """Returns the import time of a source: that of the first import of the same bytes, if any."""
    for one in parent.sources if parent is not None else ():
        if source.sha256 and one.sha256 == source.sha256:
            assert parent is not None
            import_time_us = _recorded_import_time(parent, one)
            if options.as_of is not None and to_us(options.as_of) != import_time_us:
                notes.append(
                    f"{source.uri} keeps the time of its first import, "
                    f"{from_us(import_time_us).isoformat()}; --as-of applies to new files only"
                )
            return import_time_us
    return to_us(options.as_of) if options.as_of else source.import_time_us(now_us)


def _recorded_import_time(manifest: snapshot_pb2.Manifest, source: snapshot_pb2.Source) -> int:
    """Returns the import time of a snapshot's source; old snapshots have only a build time."""
    time = source.import_time if source.HasField("import_time") else manifest.create_time
    return time.ToMicroseconds()
