"""Compaction: a new snapshot from the current one and the live changes since.

Re-embedding is a compaction with a different model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceRow
from index_builder.execution.executor import Executor
from index_builder.execution.progress import Progress
from index_builder.indexes import faiss_writer
from index_builder.options.build_options import AUTO, BuildOptions, ChunkOptions, IndexOptions, Mode
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build
from nearline.contract import Embedder
from nearline.counts import counted
from nearline.errors import Conflict, InvalidRequest, SnapshotMismatch, Unsupported
from nearline.store.snapshot import KIND_NAMES, Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive, PendingChanges, archive_changes
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.retention import (
    contained_watermark,
    drop_archived_segments,
    log_lineage,
    trim_log,
)

DEFAULT_SHARE = 0.2
DEFAULT_AGE_S = 24 * 3600.0
# A quarter of the bundled Redis.
DEFAULT_LOG_BYTES = 128 << 20
# A large log is compacted again once so much of it is newer than the current snapshot: it is
# trimmed only to what the oldest snapshot of the store contains.
_NEWER_SHARE = 0.1


class LogExtent(NamedTuple):
    """Changes in a log, and its memory in Redis."""

    changes: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionCheck:
    """A check of whether compaction is due.

    changes: Live changes that the current snapshot lacks. documents: Number of documents in that
    snapshot. age_s: Age of the oldest of the changes. log: Extent of the log. reason: Why
    compaction is due; empty if it is not. epoch: Epoch of that snapshot.
    """

    changes: int
    documents: int
    age_s: float
    log: LogExtent
    reason: str
    epoch: int = 0


def assess_changes(
    pending: PendingChanges,
    documents: int,
    log: LogExtent,
    share: float,
    age_s: float,
    log_bytes: int,
) -> CompactionCheck:
    """Returns whether changes exceed a limit of number, age or memory.

    Args:
        log: Extent of the log.
        share: Maximum ratio of changes to documents.
        age_s: Maximum age of the oldest change.
        log_bytes: Maximum memory of the log.
    """
    oldest_s = max(0.0, time.time() - pending.oldest_us / 1e6) if pending.changes else 0.0
    reason = ""
    if pending.changes > share * documents:
        changes = counted(pending.changes, "change")
        reason = f"{changes}: more than {share:.0%} of {counted(documents, 'document')}"
    elif pending.changes and oldest_s > age_s:
        reason = f"the oldest change is {oldest_s / 3600:.1f} hours old"
    elif log.bytes > log_bytes and pending.changes > _NEWER_SHARE * log.changes:
        reason = f"the change log takes {log.bytes >> 20} MiB: more than {log_bytes >> 20} MiB"
    return CompactionCheck(
        changes=pending.changes, documents=documents, age_s=oldest_s, log=log, reason=reason
    )


async def check_compaction(
    store: Store,
    log: ChangeLog,
    share: float = DEFAULT_SHARE,
    age_s: float = DEFAULT_AGE_S,
    log_bytes: int = DEFAULT_LOG_BYTES,
) -> CompactionCheck:
    """Archives the log and returns whether compaction is due; see `assess_changes`.

    Raises: NotFound: nothing is published. As `archive_changes`.
    """
    await archive_changes(store, log)
    state = await log.state()
    kept = sum(state.head.positions) - sum(state.trimmed.positions)
    extent = LogExtent(kept, await log.size_bytes())
    return await asyncio.to_thread(
        _check_pending, store, log.collection, extent, share, age_s, log_bytes
    )


def no_changes(store: Store, collection: str) -> CompactionCheck:
    """Returns the check of a collection that never had a change log. Raises: NotFound."""
    record = store.alias_in_force(collection)
    documents = store.manifest(collection, record.current).documents
    return CompactionCheck(
        changes=0,
        documents=documents,
        age_s=0.0,
        log=LogExtent(0, 0),
        reason="",
        epoch=record.epoch,
    )


def _check_pending(
    store: Store,
    collection: str,
    extent: LogExtent,
    share: float,
    age_s: float,
    log_bytes: int,
) -> CompactionCheck:
    record = store.alias_in_force(collection)
    manifest = store.manifest(collection, record.current)
    found = []
    logs = log_lineage(store, collection)
    for log_id in logs:
        archive = Archive(store, collection, log_id)
        found.append(archive.pending(contained_watermark(manifest, log_id, logs)))
    oldest = [one.oldest_us for one in found if one.changes]
    pending = PendingChanges(sum(one.changes for one in found), min(oldest, default=0))
    check = assess_changes(pending, manifest.documents, extent, share, age_s, log_bytes)
    # A new snapshot would end the trial of a canary, so compaction waits.
    return replace(check, reason="" if record.canary else check.reason, epoch=record.epoch)


async def compact(
    options: BuildOptions,
    log: ChangeLog | None,
    embedder: Embedder | None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> BuildResult:
    """Builds a snapshot of the current one and all changes since, and makes it current.

    Changes that every snapshot in the store contains are then removed from log and archive.

    Args:
        options: From `compaction_options`; with `training`, models are trained again, otherwise
            they are inherited.
        log: The change log; None if the collection has none.
        embedder: Embedder with the model of the snapshot; None if the user brings the vectors.
        progress: Optional; receives the progress of stages.
        executor: Runs the embedding; None uses this process.
    Raises: SnapshotMismatch: the embedder has a different model. Conflict: another process
        compacts, another snapshot became current, or a canary is on trial. As `build`.
    """
    store = Store.open(options.store)
    record = await asyncio.to_thread(store.alias_in_force, options.collection)
    if record.canary:
        raise Conflict(
            f"{record.canary} is a canary of {record.current}, and compaction would end its trial; "
            "promote or abort it first (nearline rollout)"
        )
    manifest = await asyncio.to_thread(read_current_manifest, store, options.collection)
    wanted = manifest.embedder.fingerprint
    if wanted:
        if embedder is None:
            raise Unsupported(
                f"snapshot {manifest.snapshot_id} has model {manifest.embedder.model}; compaction "
                "needs it for changes without vectors: name an embedding service"
            )
        found = (await embedder.info()).fingerprint
        if found != wanted:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} has a model with fingerprint {wanted}, the "
                f"embedding service one with {found}; use the same, or change the model with "
                "nearline reembed"
            )
    return await _build(options, log, embedder if wanted else None, progress, executor)


async def reembed(
    options: BuildOptions,
    log: ChangeLog | None,
    embedder: Embedder,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> BuildResult:
    """Compacts and embeds all documents again, with a different model.

    Fusion weight and answer calibration depend on the model, so they return to their defaults.

    Args:
        options: From `compaction_options`.
        log: The change log; None if the collection has none.
        embedder: Embedder with the new model.
        progress: Optional; receives the progress of stages.
        executor: Runs the embedding; None uses this process.
    Raises: Unsupported: the user brings the vectors. InvalidRequest: the snapshot already has this
        model. As `compact`.
    """
    manifest = await asyncio.to_thread(
        read_current_manifest, Store.open(options.store), options.collection
    )
    before, card = manifest.embedder, await embedder.info()
    if not before.fingerprint:
        raise Unsupported(
            f"you brought the vectors of snapshot {manifest.snapshot_id}, no model made them; "
            "bring those of the new model with nearline build --vector-column"
        )
    if before.fingerprint == card.fingerprint:
        raise InvalidRequest(
            f"snapshot {manifest.snapshot_id} has fingerprint {before.fingerprint} (model "
            f"{before.model}), and so has the embedding service (model {card.model}): there is "
            "nothing to embed again; name a service of a different model with --embedding",
            field="embedding",
        )
    return await _build(options, log, embedder, progress, executor)


async def _build(
    options: BuildOptions,
    log: ChangeLog | None,
    embedder: Embedder | None,
    progress: Progress | None,
    executor: Executor | None,
) -> BuildResult:
    store = Store.open(options.store)
    result = await build(
        _no_rows,
        [],
        options,
        embedder,
        progress,
        require_vectors=embedder is None,
        log=log,
        inherit=True,
        executor=executor,
    )
    if log is not None:
        await trim_log(store, log)
        await asyncio.to_thread(drop_archived_segments, store, options.collection)
    return result


def compaction_options(options: BuildOptions) -> BuildOptions:
    """Completes options with those of the current snapshot.

    Args:
        options: Only store, collection, device, golden_queries, seed, threads, promote and work_dir
            count.
    Raises: NotFound: nothing is published.
    """
    manifest = read_current_manifest(Store.open(options.store), options.collection)
    index = IndexOptions(metric=manifest.metric)
    # An index chosen by size adapts to the new size.
    if faiss_writer.choose_factory(index, manifest.chunks) == manifest.index_factory:
        factory = AUTO
    else:
        factory = manifest.index_factory
    index = replace(
        index,
        factory=factory,
        ef_search=manifest.default_ef_search or index.ef_search,
        nprobe=manifest.default_nprobe,
        threads=options.index.threads,
    )
    chunks = ChunkOptions(
        max_tokens=manifest.chunking.max_tokens,
        overlap_sentences=manifest.chunking.overlap_sentences,
    )
    return replace(
        options,
        shards=len(manifest.shards),
        chunks=chunks,
        index=index,
        attributes={one.name: KIND_NAMES[one.kind] for one in manifest.attributes},
        lexical=manifest.HasField("lexical"),
        language=manifest.lexical.language or options.language,
        title_only=True,
        mode=Mode.MERGE,
    )


def read_current_manifest(store: Store, collection: str) -> snapshot_pb2.Manifest:
    """Reads the manifest of the current snapshot. Raises: NotFound."""
    return store.manifest(collection, store.alias_in_force(collection).current)


def _no_rows(bad_rows: BadRows) -> Iterable[SourceRow]:
    return ()
