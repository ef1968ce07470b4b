"""The documents that live changes brought: added at the end, read through views of a prefix."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.times import to_us
from retrieval.index.item_table import DocumentRows
from retrieval.live.growable_array import GrowableArray


class LiveItem(NamedTuple):
    """A document as one change left it; see `Documents` for its parts."""

    id: str
    title: str
    text: str
    attributes: Attributes
    version: int
    expires: datetime | None


class LiveDocuments:
    """Documents and their chunks; one writer."""

    def __init__(self) -> None:
        self.items: list[LiveItem] = []
        self.max_chunks = 0
        # The newest document of each id, and for each document the one that it replaced, or -1: an
        # older view goes back to what it has.
        self.newest: dict[str, int] = {}
        self.replaced: list[int] = []
        self._first_rows = GrowableArray(np.int64)
        self._first_rows.add(0)
        self._document_of = GrowableArray(np.int64)
        self._starts = GrowableArray(np.int64)
        self._ends = GrowableArray(np.int64)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self._document_of)

    @property
    def document_of(self) -> NDArray[np.int64]:
        """(rows,) the document of each row."""
        return self._document_of.values

    def add(self, item: LiveItem, bounds: NDArray[np.int64]) -> int:
        """Adds a document with (chunks, 2) bounds of its chunks; gives its number."""
        document = len(self.items)
        self._document_of.extend(np.full(len(bounds), document))
        self._starts.extend(bounds[:, 0])
        self._ends.extend(bounds[:, 1])
        self._first_rows.add(self.rows)
        self.max_chunks = max(self.max_chunks, len(bounds))
        self.replaced.append(self.newest.get(item.id, -1))
        self.items.append(item)
        self.newest[item.id] = document
        return document

    def rows_of(self, document: int) -> NDArray[np.int64]:
        """Returns the rows of a document."""
        first_rows = self._first_rows.values
        return np.arange(first_rows[document], first_rows[document + 1])

    def bounds_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns first and past-the-last code points of rows: (n, 2)."""
        return np.stack((self._starts.values[rows], self._ends.values[rows]), axis=1)

    def view(self, alive: NDArray[np.bool_]) -> DocumentsView:
        """Returns what is there now.

        Args:
            alive: (documents,) those that were neither replaced nor deleted; not changed later.
        """
        return DocumentsView(
            self,
            alive,
            self._first_rows.values,
            self._document_of.values,
            self._starts.values,
            self._ends.values,
        )


class DocumentsView(DocumentRows):
    """`Documents` at one moment. Ids lead to what was alive then, numbers and rows to all.

    Args:
        store: What holds them; it may go on growing.
        alive: (documents,) bool.
        first_rows: (documents + 1,) int64. document_of, starts, ends: (rows,) int64.
    """

    def __init__(
        self,
        store: LiveDocuments,
        alive: NDArray[np.bool_],
        first_rows: NDArray[np.int64],
        document_of: NDArray[np.int64],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> None:
        super().__init__(first_rows, starts, ends)
        self._store = store
        self._items = store.items
        self._alive = alive
        self._document_of = document_of
        self._in_order: tuple[Sequence[str], Sequence[int]] | None = None
        self.documents = len(alive)
        self.chunks = len(document_of)
        self.max_chunks = store.max_chunks

    def documents_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the document of each row; same shape as rows."""
        return self._document_of[rows]

    def id(self, document: int) -> str:
        """Returns the id of a document."""
        return self._items[document].id

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Returns the ids of documents."""
        items = self._items
        return [items[document].id for document in documents.tolist()]

    def names_of(self, rows: NDArray[np.int64]) -> list[str]:
        """Returns the document ids of rows."""
        return self.ids(self._document_of[rows])

    def find(self, document_id: str) -> int | None:
        """Finds what was alive by id; None where nothing was."""
        document = self._store.newest.get(document_id, -1)
        while document >= self.documents:
            document = self._store.replaced[document]
        return document if document >= 0 and self._alive[document] else None

    def following(self, after_id: str) -> Iterable[int]:
        """Yields what was alive and has a greater id, in id order; "" is before all."""
        if self._in_order is None:
            alive = np.flatnonzero(self._alive)
            pairs = sorted(zip(self.ids(alive), alive.tolist(), strict=True))
            self._in_order = [one for one, _ in pairs], [number for _, number in pairs]
        ids, documents = self._in_order
        return islice(documents, bisect_right(ids, after_id) if after_id else 0, None)

    def title(self, document: int) -> str:
        """Returns the title of a document; it may be empty."""
        return self._items[document].title

    def text(self, document: int) -> str:
        """Returns the whole text of a document."""
        return self._items[document].text

    def attributes(self, document: int) -> Attributes:
        """Returns the attributes of a document, times as aware datetimes."""
        return self._items[document].attributes

    def version(self, document: int) -> int:
        """Returns the number of the change that brought a document."""
        return self._items[document].version

    def expires(self, document: int) -> datetime | None:
        """Returns the time after which a document is served no more; None: it stays."""
        return self._items[document].expires

    def expiries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the documents that expire and when, soonest first: (n,) microseconds since
        1970."""
        due = sorted(
            (to_us(item.expires), document)
            for document, item in enumerate(self._items[: self.documents])
            if item.expires is not None
        )
        pairs = np.array(due, np.int64).reshape(-1, 2)
        return pairs[:, 1], pairs[:, 0]
