"""Checks of the documents: which are missing, and whether their vectors are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.comparison import OFF, Comparison
from index_builder.releases.gate_report import Check, make_check, skip_check
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.documents import text_to_embed
from nearline.errors import NearlineError, SnapshotCorrupt, SnapshotMismatch
from retrieval.changelog.archive import Archive
from retrieval.changelog.records import ChangeKind
from retrieval.changelog.retention import log_lineage
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols.watermark import Watermark
from retrieval.search import item_lookup
from retrieval.search.request_context import RequestContext

# What the same text of the same model may differ by; of codes of few bits it is much more.
SAME = 0.99
_SAME_CODED = 0.6
_SAMPLE = 2_000
_AT_ONCE = 256
_EMBEDDED = 64
_EMBED_S = 120.0
_STORED = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.VECTOR})
_SHOWN = 3


def check_missing(seen: Comparison) -> Check:
    """Looks for documents of the live snapshot that are gone though nobody deleted them."""
    limit, live = seen.limits.max_missing, seen.live
    if limit < 0:
        return skip_check("missing", OFF)
    if live is None:
        return skip_check("missing", seen.alone)
    there = set(seen.candidate.ids())
    before = live.ids()
    lacking = [one for one in before if one not in there]
    excused, told = set[str](), ""
    if lacking:
        try:
            excused = set(_changed_between(live, seen.candidate))
        except (SnapshotCorrupt, SnapshotMismatch) as error:
            told = f" (deletions could not be read: {error.message})"
    lacking = [one for one in lacking if one not in excused and not _expired(live, one)]
    share = len(lacking) / len(before) if before else 0.0
    found = f"{len(lacking):,} of {len(before):,} documents are gone that nobody deleted{told}"
    if lacking:
        found += f", for example {', '.join(map(repr, lacking[:_SHOWN]))}"
    remedy = (
        "see that the whole corpus was read (nearline snapshots show, bad rows), or build with "
        "--mode merge; if they are meant to go, --force with a reason"
    )
    return make_check("missing", share <= limit, found, remedy, share, limit)


def _changed_between(live: LoadedSnapshot, candidate: LoadedSnapshot) -> Iterator[str]:
    """Yields documents that the archived log excuses: deleted or expired since the live snapshot,
    or written since the candidate, which a router makes up for from the log.
    """
    name = live.served.name
    old, new = watermark_of(live.manifest), watermark_of(candidate.manifest)
    # Each log goes on from the one before; what had none has nothing of them.
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


async def check_moved(seen: Comparison) -> Check:
    """Looks for documents whose text is the same and whose vector is another; or whose text is now
    that of another document.
    """
    limit, live = seen.limits.max_moved, seen.live
    if limit < 0:
        return skip_check("moved", OFF)
    if live is None:
        return skip_check("moved", seen.alone)
    if not seen.same_model:
        return skip_check("moved", "vectors of two embedders do not compare")
    brought = not seen.candidate.fingerprint
    if brought and seen.allow_model_change:
        return skip_check("moved", "its vectors were brought, and another model was allowed")
    common = sorted(set(live.ids()) & set(seen.candidate.ids()))
    rng = np.random.default_rng(0)
    if len(common) > _SAMPLE:
        common = [common[one] for one in np.sort(rng.choice(len(common), _SAMPLE, replace=False))]
    # Another way of cutting makes other vectors of the same text.
    cut_alike = live.manifest.chunking == seen.candidate.manifest.chunking
    least = min(_least_cosine(live), _least_cosine(seen.candidate))
    with_text, moved, others = 0, 0, dict[tuple[str, str], str]()
    for at in range(0, len(common), _AT_ONCE):
        part = common[at : at + _AT_ONCE]
        was = await _items(live, part)
        now = await _items(seen.candidate, part)
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
        return skip_check("moved", "no document that both have has a text to tell it by")
    swapped = _elsewhere(live, others) if len(others) > limit * with_text else 0
    share = (moved + swapped) / with_text
    found = (
        f"of {with_text:,} documents that both have, {moved} have another vector under the same "
        f"text, {swapped} the text of another document"
    )
    remedy = (
        "ids or vectors are mixed up: see that the ids of the corpus belong to its rows "
        "(--id-column, the order of a file of vectors), and build again from the sources"
    )
    if brought:
        remedy += "; where the vectors are of another model now: --allow-model-change"
    return make_check("moved", share <= limit, found, remedy, share, limit)


def _elsewhere(live: LoadedSnapshot, others: dict[tuple[str, str], str]) -> int:
    """Counts the texts that the live snapshot has, and has under another id alone."""
    elsewhere: set[str] = set()
    for one in live.shards:
        items = one.shard.base.items
        for document in range(items.documents):
            name = others.get((items.title(document), items.text(document)))
            if name is not None:
                elsewhere.add(name)
    return len(elsewhere)


async def check_vectors(seen: Comparison) -> Check:
    """Embeds some stored texts again, by the model that the manifest names."""
    snapshot = seen.candidate
    if not snapshot.fingerprint:
        return skip_check("vectors", "its vectors were brought, so no model can make them again")
    if not seen.embedding:
        return skip_check("vectors", "no embedding service was named: --embedding HOST:PORT")
    texts, stored = _some_chunks(snapshot, _EMBEDDED)
    if not texts:
        return skip_check("vectors", "it has no text to embed again")
    try:
        embedded = await snapshot.embedders.embed_documents(
            texts, snapshot.fingerprint, c.Lane.BULK, _EMBED_S
        )
    except NearlineError as error:
        return skip_check("vectors", f"its texts could not be embedded again: {error.message}")
    kept = [at for at in range(len(texts)) if at not in embedded.refused]
    if not kept:
        return skip_check("vectors", "the embedding service refuses all texts of the sample")
    cosines = [_cosine(embedded.vectors[at], stored[at]) for at in kept]
    mean, limit = float(np.mean(cosines)), _least_cosine(snapshot)
    found = f"mean cosine {mean:.3f} of {len(kept)} stored vectors to those of the model now"
    remedy = (
        "the vectors are not of the model that the manifest names: build again with that model, "
        "or find out what wrote them"
    )
    return make_check("vectors", mean >= limit, found, remedy, mean, limit)


def _some_chunks(snapshot: LoadedSnapshot, most: int) -> tuple[list[str], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    shards = [one.shard.base for one in snapshot.shards if one.shard.base.items.chunks]
    texts: list[str] = []
    vectors = [np.empty((0, snapshot.manifest.dim), np.float32)]
    for base in shards:
        items = base.items
        n = min(items.chunks, -(-most // len(shards)))
        rows = np.sort(rng.choice(items.chunks, n, replace=False)).astype(np.int64)
        documents = items.documents_of(rows)
        _, starts, ends = items.chunks_of(rows, documents)
        found = [
            text_to_embed(items.title(document), items.text(document)[start:end])
            for document, start, end in zip(documents.tolist(), starts, ends, strict=True)
        ]
        kept = [at for at, text in enumerate(found) if text.strip()]
        texts += [found[at] for at in kept]
        vectors.append(base.index.reconstruct(rows[kept]))
    return texts, np.concatenate(vectors)


async def _items(snapshot: LoadedSnapshot, ids: Sequence[str]) -> dict[str, c.Item]:
    return (await item_lookup.fetch_items(snapshot.served, ids, _STORED, RequestContext())).items


def _least_cosine(snapshot: LoadedSnapshot) -> float:
    """Returns what a vector and itself as it is stored have in common at least."""
    factory = snapshot.manifest.index_factory
    whole = ("PQ", "SQ4", "SQ6", "RaBitQ", "LSH")
    coded = any(one in factory for one in whole) and "Refine" not in factory
    return _SAME_CODED if coded and "RFlat" not in factory else SAME


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0
