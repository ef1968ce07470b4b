"""Merges what is imported with the snapshot before and with live changes, document by document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
from nearline.attributes import clean
from nearline.contract import Item
from nearline.documents import document_spans
from nearline.errors import InvalidRequest
from nearline.sentences import Span
from nearline.times import to_us
from nearline.vectors import normalise
from retrieval.changelog.records import ChangeEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """What live changes and the snapshot before made of a build.

    changes: Live changes read from the archive.
    outdated: Rows of the import that lost to something later. deleted, expired: documents that are
        gone for that. reused: chunks whose vectors were there already.
    notes: What the user should know of.
    """

    changes: int = 0
    outdated: int = 0
    deleted: int = 0
    expired: int = 0
    reused: int = 0
    notes: Sequence[str] = ()


class DocumentMerger:
    """The documents of one build that goes on from others; blocks.

    Args:
        ancestry: What it goes on from.
        options: Of the build.
        sources: What is imported; their places are those of the ancestry.
        folder: Work folder.
        fingerprint: Of the build's embedder; empty where documents bring their vectors.
    Raises: as `ParentDocuments` and `Lineage.changes`.
    """

    def __init__(
        self,
        ancestry: Lineage,
        options: BuildOptions,
        sources: Sequence[SourceCount],
        folder: Path,
        fingerprint: str,
    ) -> None:
        self._ancestry = ancestry
        self._options = options
        self._fingerprint = fingerprint
        self._keeps_others = ancestry.mode is Mode.MERGE
        self._now = datetime.now(UTC)
        names = [source.uri for source in sources]
        self._places_us = dict(zip(names, ancestry.places_us, strict=True))
        # Where an import lacks a document, its oldest part decides.
        self._absent_us = min(ancestry.places_us, default=0)
        self._after_us = ancestry.after_us()
        self._outdated = self._expired = self._gone = self._reused = 0
        parent = ancestry.parent
        self._unit_length = options.index.metric == COSINE
        self._same_metric = parent is None or parent.metric == options.index.metric
        self._notes = [*ancestry.notes, *self._about_vectors()]
        self._parent = None
        if parent is not None:
            with_vectors = matches_options(parent, options, fingerprint)
            self._parent = ParentDocuments(ancestry.store, parent, with_vectors=with_vectors)
        self._deleted: DeletedDocuments = dict(self._parent.deleted) if self._parent else {}
        self._changed = ChangedDocuments(folder)
        self._changed.take(ancestry.changes())

    def arrive(self, row: SourceRow, vector: NDArray[np.float32] | None) -> PreparedDocument | None:
        """Puts a row of the import in its place.

        Args:
            row: With a checked item.
            vector: (d,) that it brings.
        Returns: What the document is with it; None: it was deleted later, or is past its time.
        """
        story = self._story(row.item.id, self._changed.find(row.item.id))
        content = self._imported(row.item, vector, story)
        found = ImportedDocument(content, self._places_us[row.location.source])
        settled = apply_import(story, found, keeps_others=self._keeps_others)
        assert settled is not None
        self._outdated += settled.content is not content
        return self._arrival(row.item.id, settled, row.location)

    def rest(self) -> Iterator[PreparedDocument]:
        """Yields the documents that the import lacks, and that stay."""
        for document_id, changes in self._changed.unseen():
            story = self._story(document_id, changes)
            if found := self._left(document_id, story, "live changes", changes.version):
                yield found
        if self._parent is None:
            return
        assert self._ancestry.parent is not None
        name = f"snapshot {self._ancestry.parent.snapshot_id}"
        after_us = None if self._keeps_others else self._absent_us
        for number, (document_id, story) in enumerate(self._parent.unseen(after_us), start=1):
            if found := self._left(document_id, story, name, number):
                yield found

    def deleted(self) -> DeletedDocuments:
        """Returns the deleted documents that an import known by now could bring back: all whose
        deletion is not older than every import in the manifest.
        """
        places = [s.import_time.ToMicroseconds() for s in self._ancestry.sources(self._read_only())]
        oldest_us = min(places, default=1 << 62)
        return {name: at for name, at in self._deleted.items() if at[0] >= oldest_us}

    def merged(self) -> MergeSummary:
        """Returns what became of it all."""
        return MergeSummary(
            changes=self._changed.count,
            outdated=self._outdated,
            deleted=self._gone,
            expired=self._expired,
            reused=self._reused,
            notes=tuple(self._notes),
        )

    def close(self) -> None:
        """Closes the files."""
        self._changed.close()
        if self._parent is not None:
            self._parent.close()

    def _read_only(self) -> list[SourceCount]:
        return [SourceCount(uri=name) for name in self._places_us]

    def _left(
        self, document_id: str, story: DocumentState | None, source: str, line: int
    ) -> PreparedDocument | None:
        settled = apply_import(
            story, None, keeps_others=self._keeps_others, absent_us=self._absent_us
        )
        if settled is None:
            self._deleted.pop(document_id, None)
            return None
        return self._arrival(document_id, settled, SourceLocation(source, line))

    def _story(self, document_id: str, changes: DocumentChanges) -> DocumentState | None:
        story = self._parent.find(document_id) if self._parent else None
        if not changes.version:
            return story
        # Whatever the clocks say, what the snapshot was built from came before.
        changes = changes.not_before(self._after_us + 1)
        return changes.after(story, self._changed_content)

    def _changed_content(self, entry: ChangeEntry) -> DocumentContent:
        """Returns what a change says, with its vectors where they are those of this build."""
        change = entry.change
        matrix = change.vectors.get(self._fingerprint)
        if not self._fingerprint:
            bounds = np.array([(0, len(change.text))], np.int64)
        else:
            item = Item(id=change.document_id, title=change.title, text=change.text)
            bounds = np.array(self._cut(item), np.int64)
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

    def _imported(
        self, item: Item, vector: NDArray[np.float32] | None, story: DocumentState | None
    ) -> DocumentContent:
        """Returns what an import says, with the vectors of the same text where they are known."""
        known = story.content if story is not None else None
        bounds, vectors = None, (lambda: None if vector is None else vector[np.newaxis])
        if vector is None and known is not None and known.bounds is not None:
            if (known.title, known.text) == (item.title, item.text):
                bounds, vectors = known.bounds, known.vectors
        return DocumentContent(
            item.title, item.text, item.attributes, item.expires, bounds, vectors
        )

    def _arrival(
        self, document_id: str, story: DocumentState, location: SourceLocation
    ) -> PreparedDocument | None:
        content = story.content
        if content is None:
            self._gone += 1
            self._deleted[document_id] = story.time_us, story.version
            return None
        if content.expires is not None and content.expires <= self._now:
            self._expired += 1
            if story.changed_us:
                # What it took the place of must not come back.
                self._deleted[document_id] = story.changed_us, story.version
            return None
        self._deleted.pop(document_id, None)
        try:
            attributes = clean(story.attributes, self._options.attributes)
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
                + ", as it was brought otherwise than the documents of this build; delete it, or "
                "build as before"
            )
        if self._fingerprint and vectors is not None:
            self._reused += len(vectors)
        if vectors is not None and not self._same_metric and self._unit_length:
            vectors = normalise(vectors)
        cut: Sequence[Span]
        if content.bounds is not None:
            cut = [(int(start), int(end)) for start, end in content.bounds]
        else:
            cut = self._cut(item) if vectors is None else [(0, len(item.text))]
        return PreparedDocument(location, item, cut, vectors, _life(story, content.expires))

    def _cut(self, item: Item) -> list[Span]:
        cut = self._options.chunks
        return document_spans(item, cut.max_tokens, cut.overlap_sentences)

    def _about_vectors(self) -> Iterator[str]:
        parent = self._ancestry.parent
        if parent is None or has_exact_vectors(parent):
            return
        if self._fingerprint:
            yield (
                f"index {parent.index_factory} keeps vectors only roughly: the texts of snapshot "
                f"{parent.snapshot_id} are embedded again"
            )
        else:
            yield (
                f"index {parent.index_factory} keeps vectors only roughly, and there are no others "
                f"of the documents of snapshot {parent.snapshot_id}: each build from it loses some"
            )


def _life(story: DocumentState, expires: datetime | None) -> DocumentVersion:
    return DocumentVersion(
        version=story.version,
        expires_us=None if expires is None else to_us(expires),
        changed_us=0 if story.imported else story.time_us,
        placed_us=story.time_us if story.imported else 0,
        patches=encode_patches(story.patches),
    )
