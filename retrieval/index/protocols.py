"""What a part of a shard is made of.

A shard is searched in two parts: the immutable one of the snapshot, memory-mapped, and the one that
live changes have made beside it, in memory. Both are read through these protocols. Rows (chunks)
and documents are numbered from 0 within their part; a document's rows lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, Filter, Scalar
from retrieval.index.filtering.planner import Matches
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from retrieval.protocols.shard import FieldCounts, ShardFilterPlan


class Documents(Protocol):
    """Documents and their chunks; reads may come from many threads."""

    @property
    def documents(self) -> int:
        """Number of documents."""
        ...

    @property
    def chunks(self) -> int:
        """Number of rows."""
        ...

    @property
    def max_chunks(self) -> int:
        """Most rows of any one document."""
        ...

    def documents_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the document of each row; same shape as rows."""
        ...

    def chunks_of(
        self, rows: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> tuple[list[int], list[int], list[int]]:
        """Returns chunk numbers within their documents, first and past-the-last code points."""
        ...

    def rows_of(self, document: int) -> NDArray[np.int64]:
        """Returns the rows of a document."""
        ...

    def rows_of_many(
        self, documents: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows of documents, document after document, and how many each has."""
        ...

    def id(self, document: int) -> str:
        """Returns the id of a document."""
        ...

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Returns the ids of documents."""
        ...

    def find(self, document_id: str) -> int | None:
        """Finds a document by id; None where there is none (any more)."""
        ...

    def following(self, after_id: str) -> Iterable[int]:
        """Yields the documents whose id is greater, in id order; "" is before all."""
        ...

    def title(self, document: int) -> str:
        """Returns the title of a document; it may be empty."""
        ...

    def text(self, document: int) -> str:
        """Returns the whole text of a document."""
        ...

    def attributes(self, document: int) -> Attributes:
        """Returns the attributes of a document, times as aware datetimes."""
        ...

    def version(self, document: int) -> int:
        """Returns the number of the last live change to a document; 0: none."""
        ...

    def expires(self, document: int) -> datetime | None:
        """Returns the time after which a document is served no more; None: it stays."""
        ...

    def expiries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the documents that expire and when, soonest first: (n,) microseconds since
        1970."""
        ...


class WordIndex(Protocol):
    """The words of the rows; see `retrieval.index.lexical.bm25_index.LexicalIndex`."""

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the best rows by BM25: rows and scores > 0, (score descending, row ascending)."""
        ...

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 score of rows, to the bit what `search` gives; 0 without a word."""
        ...

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the words of a text, each once, with the chunks of the snapshot that have it."""
        ...


class FilteredVectors(Protocol):
    """Searches vectors among the rows that match a filter."""

    def search(
        self, vectors: NDArray[np.float32], k: int, params: SearchParams, matches: Matches
    ) -> tuple[Neighbours, ShardFilterPlan]:
        """Finds the k best matches per query, and tells how; see `FilteredSearch.search`."""
        ...


class AttributeValues(Protocol):
    """The attributes of the documents; see `retrieval.index.attributes.SnapshotAttributes`."""

    @property
    def filtered(self) -> FilteredVectors:
        """Searches under a filter."""
        ...

    def matches(self, filter: Filter) -> Matches:
        """Returns what matches, whether it is alive or not.

        Raises: InvalidRequest: an attribute that does not exist, or a value of another kind.
        """
        ...

    def first_values(self, field: str, documents: NDArray[np.int64]) -> list[Scalar]:
        """Returns the (first) value of an attribute in each document, None where there is none."""
        ...

    def counts(self, field: str, matching: NDArray[np.bool_]) -> FieldCounts:
        """Counts the values of an attribute among documents; (documents,) bool: those to count."""
        ...

    def word_plan(self, matches: Matches) -> ShardFilterPlan:
        """Says how words are searched under a filter."""
        ...
