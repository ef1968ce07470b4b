"""The live documents of a shard, with their vectors, words and attributes, and their compaction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nearline.items.documents import chunk_texts
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.planner import Matches
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.segment import Segment
from retrieval.live.attributes import LiveColumns
from retrieval.live.documents import GrowableArray, LiveDocuments, LiveItem
from retrieval.live.vectors import LiveVectors
from retrieval.live.words import LiveWords
from retrieval.protocols.snapshot import COSINE


class LiveSegment:
    """Documents with their vectors, words and attributes; one writer.

    Args:
        manifest: Manifest of the snapshot.
        vocabulary: Words of the snapshot; None if it has no lexical index.
    """

    def __init__(self, manifest: snapshot_pb2.Manifest, vocabulary: Vocabulary | None) -> None:
        self._manifest = manifest
        self._vocabulary = vocabulary
        self.items = LiveDocuments()
        self.vectors = LiveVectors(manifest.dim, manifest.default_ef_search)
        self._words = None if vocabulary is None else LiveWords(manifest.lexical, vocabulary)
        self._columns = LiveColumns(manifest.attributes)
        self._alive = GrowableArray(np.bool_)
        self.alive_documents = 0
        self.dead_rows = 0

    @property
    def rows(self) -> int:
        """Number of rows, including dead ones."""
        return self.items.rows

    @property
    def documents(self) -> int:
        """Number of documents, including dead ones."""
        return len(self.items.items)

    def add(self, item: LiveItem, bounds: NDArray[np.int64], vectors: NDArray[np.float32]) -> int:
        """Adds a document; returns its number.

        Args:
            item: The document.
            bounds: (chunks, 2) code points.
            vectors: (chunks, d) float32.
        """
        row = self.rows
        self.vectors.add(vectors)
        if self._words is not None:
            texts = chunk_texts(item.text, bounds.tolist())
            self._words.add(row, item.title, item.attributes, texts, item.popularity)
        document = self.items.add(item, bounds)
        self._columns.catch_up(self.items.items)
        self._alive.add(True)
        self.alive_documents += 1
        return document

    def find(self, document_id: str) -> int | None:
        """Returns the alive document with an id; None if there is none."""
        document = self.items.newest.get(document_id, -1)
        return document if document >= 0 and self.is_alive(document) else None

    def is_alive(self, document: int) -> bool:
        """Returns whether a document was neither replaced nor deleted."""
        return bool(self._alive.values[document])

    def remove(self, document: int) -> bool:
        """Marks a document as dead; returns False if it already is."""
        if not self.is_alive(document):
            return False
        self._alive.values[document] = False
        self.alive_documents -= 1
        self.dead_rows += len(self.items.rows_of(document))
        return True

    def part(self) -> tuple[Segment | None, Matches | None]:
        """Returns a searchable view of the current documents.

        Returns: The segment, None if no document is alive; and its alive rows, None if all are.
        """
        if self.alive_documents == 0:
            return None, None
        alive = self._alive.values.copy()
        view = self.items.view(alive)
        index = self.vectors.view(view.names_of)
        words = None if self._words is None else self._words.view(view.chunks, view.names_of)
        part = Segment(
            index,
            view,
            self._columns.view(self.items.items, view, index, words),
            words,
            unit_length=self._manifest.metric == COSINE,
        )
        if self.alive_documents == view.documents:
            return part, None
        chunks = alive[self.items.document_of]
        bitmap = np.packbits(chunks, bitorder="little")
        return part, Matches(alive, chunks, bitmap, view.chunks - self.dead_rows)

    def empty(self) -> LiveSegment:
        """Returns an empty segment for the same snapshot."""
        return LiveSegment(self._manifest, self._vocabulary)


class Compaction:
    """Copies the alive documents of a live segment to a new one, a few at a time.

    Copying all at once would delay searches: 20,000 documents take a third of a second of Python.

    Args:
        old: The segment in use.
    """

    def __init__(self, old: LiveSegment) -> None:
        self.new = old.empty()
        self._old = old
        self._copied = 0

    @property
    def done(self) -> bool:
        """Whether the new segment has all alive documents, and a graph over each full block."""
        return self._copied == self._old.documents and self.new.vectors.unsealed() is None

    def advance(self, documents: int) -> None:
        """Processes the next documents, dead ones included."""
        stop = min(self._copied + documents, self._old.documents)
        for document in range(self._copied, stop):
            if self._old.is_alive(document):
                items = self._old.items
                rows = items.rows_of(document)
                vectors = self._old.vectors.read(rows)
                self.new.add(items.items[document], items.bounds_of(rows), vectors)
        self._copied = stop

    def remove(self, document: int) -> None:
        """Removes a document of the old segment that was just removed from it."""
        if document < self._copied:
            copied = self.new.find(self._old.items.items[document].id)
            assert copied is not None, f"document {document} was not copied. This is a bug."
            self.new.remove(copied)
