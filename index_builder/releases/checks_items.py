"""Checks the documents of a snapshot: another model, missing documents, mixed up vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, SkippedCheck, make_check
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.changelog.archive import Archive
from retrieval.changelog.records import ChangeKind
from retrieval.changelog.retention import log_lineage
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols.watermark import Watermark
from retrieval.search import item_lookup
from retrieval.search.request_context import RequestContext

# Minimum cosine of vectors of the same text and model; much lower for coarse codes.
_MIN_COSINE = 0.99
_MIN_COSINE_CODED = 0.6
_SAMPLE = 2_000
_BATCH = 256
_STORED = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.VECTOR})
_EXAMPLES = 3


def check_model(comparison: Comparison) -> Check:
    """Compares the embedder with that of the live snapshot."""
    live, candidate = comparison.require_live(), comparison.candidate
    ours, theirs = _model(comparison), live.manifest.embedder.fingerprint or "brought vectors"
    theirs = f"{theirs}, dim {live.manifest.dim}"
    if comparison.same_model:
        return make_check("model", True, f"the embedder is that of the live snapshot: {ours}")
    found = f"another embedder: {ours}; the live snapshot has {theirs}"
    if comparison.allow_model_change:
        return make_check("model", True, f"{found}; this was allowed")
    remedy = (
        "roll it out with both embedders running (nearline rollout start "
        f"{candidate.id}), or pass --allow-model-change if the routers have the new one"
    )
    return make_check("model", False, found, remedy)


def _model(comparison: Comparison) -> str:
    manifest = comparison.candidate.manifest
    return f"{manifest.embedder.fingerprint or 'brought vectors'}, dim {manifest.dim}"


def check_missing(comparison: Comparison) -> Check:
    """Looks for documents of the live snapshot that are missing although they were not deleted."""
    limit = comparison.limits.max_missing
    live = comparison.require_live(limit)
    present = set(comparison.candidate.ids())
    live_ids = live.ids()
    missing = [one for one in live_ids if one not in present]
    excused, note = set[str](), ""
    if missing:
        try:
            excused = set(_changed_between(live, comparison.candidate))
        except (SnapshotCorrupt, SnapshotMismatch) as error:
            note = f" (deletions could not be read: {error.message})"
    missing = [one for one in missing if one not in excused and not _expired(live, one)]
    share = len(missing) / len(live_ids) if live_ids else 0.0
    found = (
        f"{len(missing):,} of {len(live_ids):,} documents are missing and were not deleted{note}"
    )
    if missing:
        found += f", for example {', '.join(map(repr, missing[:_EXAMPLES]))}"
    remedy = (
        "check that the whole corpus was read (bad rows in nearline snapshots show), or build with "
        "--mode merge; if the documents are obsolete, use --force with a reason"
    )
    return make_check("missing", share <= limit, found, remedy, share, limit)


def _changed_between(live: LoadedSnapshot, candidate: LoadedSnapshot) -> Iterator[str]:
    """Yields documents whose absence the archived log explains.

    These were deleted or expired since the live snapshot, or written since the candidate; routers
    apply the latter from the log.
    """
    name = live.served.name
    old, new = watermark_of(live.manifest), watermark_of(candidate.manifest)
    # Each log continues its predecessor; a snapshot without a log contains no changes of any log.
    logs = log_lineage(live.store, name)
    if not logs or (new.log_id and new.log_id not in logs):
        return
    at = logs.index(new.log_id) if new.log_id else 0
    since = logs.index(old.log_id) if old.log_id in logs else 0
    for log_id in logs[since : at + 1] if new.log_id else ():
        start = old if log_id == old.log_id else Watermark(log_id)
        end = new if log_id == new.log_id else None
        for entry in Archive(live.store, name, log_id).entries(start, end):
            if entry.change.kind is ChangeKind.DELETE or _is_past(entry.change.expires):
                yield entry.change.document_id
    for log_id in logs[at:]:
        start = new if log_id == new.log_id else Watermark(log_id)
        for entry in Archive(live.store, name, log_id).entries(start):
            yield entry.change.document_id


def _expired(live: LoadedSnapshot, document_id: str) -> bool:
    for one in live.shards:
        items = one.shard.base.items
        at = items.find(document_id)
        if at is not None:
            return _is_past(items.expires(at))
    return False


def _is_past(moment: datetime | None) -> bool:
    return moment is not None and moment <= datetime.now(UTC)


async def check_moved(comparison: Comparison) -> Check:
    """Looks for documents with a different vector for the same text, or with the text of another
    document.
    """
    limit = comparison.limits.max_moved
    live = comparison.require_live(limit)
    if not comparison.same_model:
        raise SkippedCheck("vectors of two embedders are not comparable")
    brought = not comparison.candidate.fingerprint
    if brought and comparison.allow_model_change:
        raise SkippedCheck("its vectors were supplied, and another model was allowed")
    common = sorted(set(live.ids()) & set(comparison.candidate.ids()))
    rng = np.random.default_rng(0)
    if len(common) > _SAMPLE:
        common = [common[one] for one in np.sort(rng.choice(len(common), _SAMPLE, replace=False))]
    # Different chunk boundaries give different vectors for the same text.
    cut_alike = live.manifest.chunking == comparison.candidate.manifest.chunking
    least = min(_min_cosine(live), _min_cosine(comparison.candidate))
    with_text, moved, others = 0, 0, dict[tuple[str, str], str]()
    for at in range(0, len(common), _BATCH):
        part = common[at : at + _BATCH]
        was = await _items(live, part)
        now = await _items(comparison.candidate, part)
        for name in part:
            one, other = was.get(name), now.get(name)
            if one is None or other is None or not (one.title + one.text).strip():
                continue
            with_text += 1
            if (one.title, one.text) != (other.title, other.text):
                others[other.title, other.text] = name
            elif cut_alike and one.vector is not None and other.vector is not None:
                moved += _cosine(one.vector, other.vector) < least
    if not with_text:
        raise SkippedCheck("no document in both snapshots has a text")
    swapped = _count_swapped(live, others) if len(others) > limit * with_text else 0
    share = (moved + swapped) / with_text
    found = (
        f"of {with_text:,} documents in both snapshots, {moved} have another vector for the same "
        f"text, and {swapped} have the text of another document"
    )
    remedy = (
        "ids or vectors are mixed up: check that ids match their rows (--id-column, the order of a "
        "vector file), and build again from the sources"
    )
    if brought:
        remedy += "; if the vectors come from another model now, pass --allow-model-change"
    return make_check("moved", share <= limit, found, remedy, share, limit)


def _count_swapped(live: LoadedSnapshot, others: dict[tuple[str, str], str]) -> int:
    """Counts the texts that the live snapshot has only under another id."""
    swapped: set[str] = set()
    for one in live.shards:
        items = one.shard.base.items
        for document in range(items.documents):
            name = others.get((items.title(document), items.text(document)))
            if name is not None:
                swapped.add(name)
    return len(swapped)


async def _items(snapshot: LoadedSnapshot, ids: Sequence[str]) -> dict[str, c.Item]:
    return (await item_lookup.fetch_items(snapshot.served, ids, _STORED, RequestContext())).items


def _min_cosine(snapshot: LoadedSnapshot) -> float:
    """Returns the minimum cosine of a vector and its stored form."""
    factory = snapshot.manifest.index_factory
    lossy = ("PQ", "SQ4", "SQ6", "RaBitQ", "LSH")
    coded = any(one in factory for one in lossy) and "Refine" not in factory
    return _MIN_COSINE_CODED if coded and "RFlat" not in factory else _MIN_COSINE


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0
