"""Merges imported documents with the previous snapshot and live changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.records import (
    DocumentVersion,
    PreparedDocument,
    SourceCount,
    SourceLocation,
    SourceRow,
)
from index_builder.lineage.change_order import (
    DocumentChanges,
    DocumentContent,
    DocumentState,
    ImportedDocument,
    apply_import,
    encode_patches,
)
from index_builder.lineage.changed_documents import ChangedDocuments
from index_builder.lineage.lineage import Lineage
from index_builder.lineage.parent_snapshot import (
    DeletedDocuments,
    ParentDocuments,
    matches_options,
)
from index_builder.lineage.snapshot_shards import has_exact_vectors
from index_builder.options.build_options import COSINE, BuildOptions, Mode
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.items.attributes import clean
from nearline.items.documents import document_spans
from nearline.sentences import Span
from nearline.times import from_us, to_us
from nearline.vectors import normalise
from retrieval.changelog.records import ChangeEntry

# Deletions are remembered for at least 90 days before the latest import, so that an older file
# cannot bring a deleted document back.
_REMEMBER_DELETED_US = 90 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """Effects of live changes and of the previous snapshot on a build.

    changes: Live changes read from the archive.
    outdated: Imported rows overridden by later changes.
    deleted, expired: Documents removed for either reason.
    reused: Chunks that kept their vectors.
    notes: Messages for the user.
    """

    changes: int = 0
    outdated: int = 0
    deleted: int = 0
    expired: int = 0
    reused: int = 0
    notes: Sequence[str] = ()


class DocumentMerger:
    """Merges the documents of a build that continues others; blocks.

    Args:
        lineage: The snapshot and the changes that the build continues.
        options: Options of the build.
        sources: Sources of the import; the lineage has their import times.
        folder: Work folder.
        fingerprint: Fingerprint of the embedder; empty if documents bring their vectors.
    Raises: As `ParentDocuments` and `Lineage.changes`.
    """

    def __init__(
        self,
        lineage: Lineage,
        options: BuildOptions,
        sources: Sequence[SourceCount],
        folder: Path,
        fingerprint: str,
    ) -> None:
        self._lineage = lineage
        self._options = options
        self._fingerprint = fingerprint
        self._keep_absent = lineage.mode is Mode.MERGE
        self._now = from_us(lineage.begun_us)
        names = [source.uri for source in sources]
        self._import_times_us = dict(zip(names, lineage.import_times_us, strict=True))
        # The oldest source determines the import time of missing documents.
        self._absent_us = min(lineage.import_times_us, default=0)
        self._latest_import_us = lineage.latest_import_us()
        self._outdated = self._expired = self._deleted_count = self._reused = 0
        parent = lineage.parent
        self._unit_length = options.index.metric == COSINE
        self._same_metric = parent is None or parent.metric == options.index.metric
        self._notes = [*lineage.notes, *self._vector_notes()]
        self._parent = None
        if parent is not None:
            with_vectors = matches_options(parent, options, fingerprint)
            self._parent = ParentDocuments(lineage.store, parent, with_vectors=with_vectors)
        self._deleted: DeletedDocuments = dict(self._parent.deleted) if self._parent else {}
        self._changed = ChangedDocuments(folder)
        self._changed.add(lineage.changes())

    def merge_row(
        self, row: SourceRow, vector: NDArray[np.float32] | None
    ) -> PreparedDocument | None:
        """Merges an imported row.

        Args:
            row: Has a checked item.
            vector: (d,) of the document; None if it brings none.
        Returns: The resulting document; None if it was deleted later or has expired.
        """
        state = self._state_of(row.item.id, self._changed.find(row.item.id))
        content = self._imported_content(row.item, vector, state)
        found = ImportedDocument(content, self._import_times_us[row.location.source])
        result = apply_import(state, found, keep_absent=self._keep_absent)
        assert result is not None
        self._outdated += result.content is not content
        return self._prepare(row.item.id, result, row.location)

    def remaining(self) -> Iterator[PreparedDocument]:
        """Yields the remaining documents that the import lacks."""
        for document_id, changes in self._changed.unseen():
            state = self._state_of(document_id, changes)
            if found := self._prepare_absent(document_id, state, "live changes"):
                yield found
        if self._parent is None:
            return
        assert self._lineage.parent is not None
        name = f"snapshot {self._lineage.parent.snapshot_id}"
        changed_after_us = None if self._keep_absent else self._absent_us
        for document_id, state in self._parent.unseen(changed_after_us):
            if found := self._prepare_absent(document_id, state, name):
                yield found

    def deleted(self) -> DeletedDocuments:
        """Returns the deletions that later builds must know.

        These are the deletions after the earliest import in the manifest, which a build from the
        same file could undo, and all of the last 90 days before the latest import.
        """
        import_times_us = [
            source.import_time.ToMicroseconds()
            for source in self._lineage.sources(self._source_counts())
        ]
        if not import_times_us:
            return {}
        since_us = min(*import_times_us, max(import_times_us) - _REMEMBER_DELETED_US)
        return {name: at for name, at in self._deleted.items() if at[0] >= since_us}

    def summary(self) -> MergeSummary:
        """Returns the summary of the merge."""
        return MergeSummary(
            changes=self._changed.count,
            outdated=self._outdated,
            deleted=self._deleted_count,
            expired=self._expired,
            reused=self._reused,
            notes=tuple(self._notes),
        )

    def close(self) -> None:
        """Closes the files."""
        self._changed.close()
        if self._parent is not None:
            self._parent.close()

    def _source_counts(self) -> list[SourceCount]:
        return [SourceCount(uri=name) for name in self._import_times_us]

    def _prepare_absent(
        self, document_id: str, state: DocumentState | None, source: str
    ) -> PreparedDocument | None:
        result = apply_import(state, None, keep_absent=self._keep_absent, absent_us=self._absent_us)
        if result is None:
            self._deleted.pop(document_id, None)
            return None
        return self._prepare(document_id, result, SourceLocation(source, 0))

    def _state_of(self, document_id: str, changes: DocumentChanges) -> DocumentState | None:
        state = self._parent.find(document_id) if self._parent else None
        if not changes.version:
            return state
        # All imports of the previous snapshot came before these changes, whatever the clocks say.
        changes = changes.not_before(self._latest_import_us + 1)
        return changes.apply_to(state, self._changed_content)

    def _changed_content(self, entry: ChangeEntry) -> DocumentContent:
        """Returns the content of a change, with its vectors if they suit this build."""
        change = entry.change
        matrix = change.vectors.get(self._fingerprint)
        if not self._fingerprint:
            bounds = np.array([(0, len(change.text))], np.int64)
        else:
            item = Item(id=change.document_id, title=change.title, text=change.text)
            bounds = np.array(self._split(item), np.int64)
            if not (self._same_metric and np.array_equal(bounds, change.bounds)):
                matrix = None
        return DocumentContent(
            change.title,
            change.text,
            change.attributes,
            change.expires,
            bounds,
            lambda: matrix,
        )

    def _imported_content(
        self, item: Item, vector: NDArray[np.float32] | None, state: DocumentState | None
    ) -> DocumentContent:
        """Returns the content of an import, with the known vectors of an unchanged text."""
        known = state.content if state is not None else None
        bounds, vectors = None, (lambda: None if vector is None else vector[np.newaxis])
        if vector is None and known is not None and known.bounds is not None:
            if (known.title, known.text) == (item.title, item.text):
                bounds, vectors = known.bounds, known.vectors
        return DocumentContent(
            item.title, item.text, item.attributes, item.expires, bounds, vectors
        )

    def _prepare(
        self, document_id: str, state: DocumentState, location: SourceLocation
    ) -> PreparedDocument | None:
        content = state.content
        if content is None:
            self._deleted_count += 1
            self._deleted[document_id] = state.time_us, state.version
            return None
        if content.expires is not None and content.expires <= self._now:
            self._expired += 1
            if state.changed_us:
                # An older version of the document must not return.
                self._deleted[document_id] = state.changed_us, state.version
            return None
        self._deleted.pop(document_id, None)
        try:
            attributes = clean(state.attributes, self._options.attributes)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"document {document_id!r}, {location}: {error.message}"
            ) from error
        item = Item(id=document_id, title=content.title, text=content.text, attributes=attributes)
        vectors = content.vectors()
        if vectors is None and not (self._fingerprint and f"{item.title}{item.text}".strip()):
            raise InvalidRequest(
                f"document {document_id!r} ({location}) has "
                + ("no text to embed" if self._fingerprint else "no vector")
                + ", because it was added in another way than the documents of this build; delete "
                "it, or build as before"
            )
        if self._fingerprint and vectors is not None:
            self._reused += len(vectors)
        if vectors is not None and not self._same_metric and self._unit_length:
            vectors = normalise(vectors)
        spans: Sequence[Span]
        if content.bounds is not None:
            spans = [(int(start), int(end)) for start, end in content.bounds]
        else:
            spans = self._split(item) if vectors is None else [(0, len(item.text))]
        return PreparedDocument(
            location, item, spans, vectors, _document_version(state, content.expires)
        )

    def _split(self, item: Item) -> list[Span]:
        chunks = self._options.chunks
        return document_spans(item, chunks.max_tokens, chunks.overlap_sentences)

    def _vector_notes(self) -> Iterator[str]:
        parent = self._lineage.parent
        if parent is None or has_exact_vectors(parent):
            return
        if self._fingerprint:
            yield (
                f"index {parent.index_factory} keeps vectors only approximately, so the texts of "
                f"snapshot {parent.snapshot_id} are embedded again"
            )
        else:
            yield (
                f"index {parent.index_factory} keeps vectors only approximately, and the documents "
                f"of snapshot {parent.snapshot_id} have no others: each build loses some precision"
            )


def _document_version(state: DocumentState, expires: datetime | None) -> DocumentVersion:
    return DocumentVersion(
        version=state.version,
        expires_us=None if expires is None else to_us(expires),
        changed_us=0 if state.imported else state.time_us,
        import_time_us=state.time_us if state.imported else 0,
        patches=encode_patches(state.patches),
    )
