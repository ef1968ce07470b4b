"""Documents added by live changes: append-only, read through views of a prefix."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.times import to_us
from retrieval.index.protocols import Documents

_Scalar = TypeVar("_Scalar", bound=np.generic)
_FIRST_CAPACITY = 256


class GrowableArray(Generic[_Scalar]):
    """A one-dimensional array with one writer.

    A prefix taken by a reader never changes: new values are behind it, or in a larger copy.

    Args:
        dtype: Type of the values.
    """

    __slots__ = ("_cells", "_count")

    def __init__(self, dtype: type[_Scalar]) -> None:
        self._cells: NDArray[_Scalar] = np.empty(_FIRST_CAPACITY, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[_Scalar]:
        """(n,) all values, not a copy."""
        return self._cells[: self._count]

    def add(self, value: Any) -> None:
        """Appends a value."""
        if self._count == len(self._cells):
            self._grow(self._count + 1)
        self._cells[self._count] = value
        self._count += 1

    def extend(self, values: NDArray[Any]) -> None:
        """Appends several values."""
        end = self._count + len(values)
        if end > len(self._cells):
            self._grow(end)
        self._cells[self._count : end] = values
        self._count = end

    def _grow(self, min_capacity: int) -> None:
        cells = np.empty(max(min_capacity, 2 * len(self._cells)), self._cells.dtype)
        cells[: self._count] = self.values
        self._cells = cells


class LiveItem(NamedTuple):
    """A document after one change; see `Documents` for its fields.

    popularity: That of the document in the snapshot, 0..1; see `title_index`.
    """

    id: str
    title: str
    text: str
    attributes: Attributes
    version: int
    expires: datetime | None
    popularity: float = 0.0


class LiveDocuments:
    """Documents and their chunks; one writer."""

    def __init__(self) -> None:
        self.items: list[LiveItem] = []
        self.max_chunks = 0
        # The newest document of each id; and for each document, the document that it replaced, or
        # -1. Older views follow this chain to the document that they contain.
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
        """Adds a document with (chunks, 2) bounds of its chunks; returns its number."""
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
        """Returns first and past-the-end code points of rows: (n, 2)."""
        return np.stack((self._starts.values[rows], self._ends.values[rows]), axis=1)

    def view(self, alive: NDArray[np.bool_]) -> DocumentsView:
        """Returns a view of the current documents.

        Args:
            alive: (documents,) bool, neither replaced nor deleted; must not change later.
        """
        return DocumentsView(
            self,
            alive,
            self._first_rows.values,
            self._document_of.values,
            self._starts.values,
            self._ends.values,
        )


class DocumentsView(Documents):
    """A view of `Documents`: ids find alive documents only; numbers and rows find all.

    Args:
        store: The documents; it may continue to grow.
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
        self._sorted: tuple[Sequence[str], Sequence[int]] | None = None
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
        """Returns the alive document with an id; None if there is none."""
        document = self._store.newest.get(document_id, -1)
        while document >= self.documents:
            document = self._store.replaced[document]
        return document if document >= 0 and self._alive[document] else None

    def following(self, after_id: str) -> Iterable[int]:
        """Yields the alive documents with a greater id, in id order; "" precedes all ids."""
        if self._sorted is None:
            alive = np.flatnonzero(self._alive)
            pairs = sorted(zip(self.ids(alive), alive.tolist(), strict=True))
            self._sorted = [one for one, _ in pairs], [number for _, number in pairs]
        ids, documents = self._sorted
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
        """Returns the position of the change that added a document."""
        return self._items[document].version

    def expires(self, document: int) -> datetime | None:
        """Returns the expiry time of a document; None if it does not expire."""
        return self._items[document].expires

    def expiries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the documents that expire and their expiry times, soonest first.

        Returns: (n,) document numbers and (n,) microseconds since 1970, int64.
        """
        expiries = sorted(
            (to_us(item.expires), document)
            for document, item in enumerate(self._items[: self.documents])
            if item.expires is not None
        )
        pairs = np.array(expiries, np.int64).reshape(-1, 2)
        return pairs[:, 1], pairs[:, 0]
