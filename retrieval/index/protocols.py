"""The components of a segment, as protocols and a base class.

A shard consists of two segments: the immutable, memory-mapped segment of the snapshot, and the
in-memory segment of live changes. Both are read through these. Rows (chunks) and documents
are numbered from 0 within their segment; the rows of a document are contiguous.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from retrieval.index.filtering.planner import Matches
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from retrieval.protocols.shard import ShardFilterPlan

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without Arrow.
    from retrieval.index.lexical.word_matcher import WordMatcher


class Documents(ABC):
    """Documents and their chunks; reads may come from many threads.

    The chunks of a document are stored contiguously, one document after another.

    documents: Number of documents. chunks: Number of rows. max_chunks: Largest number of rows of a
    document. first_rows: As passed.

    Args:
        first_rows: (documents + 1,) int64: the row of each document's first chunk, and finally the
            number of rows.
        starts, ends: (rows,) integers: first and past-the-end code point of each chunk.
    """

    documents: int
    chunks: int
    max_chunks: int

    def __init__(
        self,
        first_rows: NDArray[np.int64],
        starts: NDArray[np.integer[Any]],
        ends: NDArray[np.integer[Any]],
    ) -> None:
        self.first_rows = first_rows
        self._starts = starts
        self._ends = ends

    def chunks_of(
        self, rows: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> tuple[list[int], list[int], list[int]]:
        """Returns chunk numbers within their documents, first and past-the-end code points.

        Args:
            rows, documents: (n,) rows and their documents, see `documents_of`.
        """
        numbers = rows - self.first_rows[documents]
        return numbers.tolist(), self._starts[rows].tolist(), self._ends[rows].tolist()

    def rows_of(self, document: int) -> NDArray[np.int64]:
        """Returns the rows of a document."""
        return np.arange(self.first_rows[document], self.first_rows[document + 1])

    def rows_of_many(
        self, documents: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows of documents, one document after another, and the row count of each."""
        firsts = self.first_rows[documents]
        counts = self.first_rows[documents + 1] - firsts
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        return np.repeat(firsts, counts) + within, counts

    @abstractmethod
    def documents_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the document of each row; same shape as rows."""

    @abstractmethod
    def id(self, document: int) -> str:
        """Returns the id of a document."""

    @abstractmethod
    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Returns the ids of documents."""

    @abstractmethod
    def find(self, document_id: str) -> int | None:
        """Returns the document with an id; None if it is absent or no longer alive."""

    @abstractmethod
    def following(self, after_id: str) -> Iterable[int]:
        """Yields the documents with a greater id, in id order; "" precedes all ids."""

    @abstractmethod
    def title(self, document: int) -> str:
        """Returns the title of a document; it may be empty."""

    @abstractmethod
    def text(self, document: int) -> str:
        """Returns the whole text of a document."""

    @abstractmethod
    def attributes(self, document: int) -> Attributes:
        """Returns the attributes of a document, times as aware datetimes."""

    @abstractmethod
    def version(self, document: int) -> int:
        """Returns the number of the last live change of a document; 0 if there was none."""

    @abstractmethod
    def expires(self, document: int) -> datetime | None:
        """Returns the expiry time of a document; None if it does not expire."""

    @abstractmethod
    def expiries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the documents that expire and their expiry times, soonest first.

        Returns: (n,) document numbers and (n,) microseconds since 1970, int64.
        """


class WordIndex(Protocol):
    """The words of the rows; see `retrieval.index.lexical.bm25_index.LexicalIndex`."""

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the best rows and their scores > 0, (score descending, row ascending)."""
        ...

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows, whatever their titles; 0 without a common word."""
        ...

    def title_levels(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns how well the titles of rows match a query, 0 if they do not."""
        ...

    def title_score(self, text: str) -> float:
        """Returns what each level of a matching title adds to the score of a row."""
        ...

    def rows_with_words(self, text: str, *, similar: bool) -> list[list[NDArray[np.int32]]]:
        """Returns for each different word of a text the columns of rows that have it.

        Args:
            text: The words; stop words are left out if there are others.
            similar: Whether words that resemble a misspelt one count.
        """
        ...

    def complete(
        self, text: str, most: int, allow: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """Returns rows whose titles complete a text, the most popular first."""
        ...

    def correction(self, text: str) -> str:
        """Returns a query with known words in place of unknown ones; empty if none is."""
        ...

    def popularity(self, row: int) -> float:
        """Returns the popularity of the document of a row, 0..1; 0 if it is unknown."""
        ...

    def matcher(self, text: str, chunks: int) -> WordMatcher:
        """Returns what finds the words of a query in texts; see `WordMatcher.of`."""
        ...

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text, each with its number of chunks in the snapshot."""
        ...


class FilteredVectors(Protocol):
    """Searches vectors among the rows that match a filter."""

    def search(
        self, vectors: NDArray[np.float32], k: int, params: SearchParams, matches: Matches
    ) -> tuple[Neighbours, ShardFilterPlan]:
        """Returns the k best matches per query, and the plan; see `FilteredSearch.search`."""
        ...
