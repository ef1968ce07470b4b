"""The documents of a snapshot segment that live changes have not hidden."""

from __future__ import annotations

import numpy as np

from retrieval.index.filtering.planner import Matches
from retrieval.index.protocols import Documents


class Survivors:
    """The documents of a snapshot that are not replaced, deleted or expired; one writer.

    Args:
        items: All documents of the snapshot segment.
    """

    def __init__(self, items: Documents) -> None:
        self._items = items
        self._documents = np.ones(items.documents, np.bool_)
        # If every document has one row, documents and chunks share one array.
        self._one_each = items.max_chunks <= 1 and items.chunks == items.documents
        self._chunks = self._documents if self._one_each else np.ones(items.chunks, np.bool_)
        self._matches: Matches | None = None
        self._changed = False
        self.hidden_documents = 0
        self.hidden_rows = 0

    def find(self, document_id: str) -> int | None:
        """Returns the document with an id; None if it is absent or hidden."""
        document = self._items.find(document_id)
        return document if document is not None and self._documents[document] else None

    def hide(self, document: int) -> bool:
        """Hides a document; returns False if it already is."""
        if not self._documents[document]:
            return False
        rows = self._items.rows_of(document)
        self._documents[document] = False
        self._chunks[rows] = False
        self.hidden_documents += 1
        self.hidden_rows += len(rows)
        self._changed = True
        return True

    def matches(self) -> Matches | None:
        """Returns an immutable copy of the remaining documents; None if all remain."""
        if self._changed:
            documents = self._documents.copy()
            chunks = documents if self._one_each else self._chunks.copy()
            bitmap = np.packbits(chunks, bitorder="little")
            self._matches = Matches(documents, chunks, bitmap, len(chunks) - self.hidden_rows)
            self._changed = False
        return self._matches
