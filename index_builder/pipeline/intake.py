"""Intake of rows: checks, cuts and spools documents, and counts malformed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.detected_lists import DetectedLists
from index_builder.documents.records import PreparedDocument, SourceRow
from index_builder.documents.spool import Spool
from index_builder.documents.vector_file import VectorFile
from index_builder.lineage.document_merger import DocumentMerger
from index_builder.options.build_options import COSINE, BuildOptions
from index_builder.options.declared_attributes import TITLE_ONLY_REMEDY
from index_builder.pipeline.work_folder import NoDocuments
from nearline.contract import Item
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.items.documents import (
    EMPTY_TEXT,
    clean_document,
    clean_vector,
    document_spans,
)

_VECTORS_PER_WRITE = 4096
_REPORT_EVERY = 256


class Intake:
    """Fills the spool, and the vector file if documents bring vectors.

    Args:
        spool: Receives the documents.
        vectors: Receives their vectors.
        options: Options of the build.
        bad_rows: Counts malformed rows.
        require_vectors: Refuse documents without a vector; False follows the first document.
        merger: Optional; merges rows with the previous snapshot and live changes.
    """

    def __init__(
        self,
        spool: Spool,
        vectors: VectorFile,
        options: BuildOptions,
        bad_rows: BadRows,
        *,
        require_vectors: bool = False,
        merger: DocumentMerger | None = None,
    ) -> None:
        self._merger = merger
        self._spool = spool
        self._vectors = vectors
        self._options = options
        self._bad_rows = bad_rows
        self.has_vectors: bool | None = True if require_vectors else None
        self.documents: Counter[str] = Counter()
        self.lists = DetectedLists(options.attributes)
        # Rows and vectors that are yet to be written.
        self._rows: list[NDArray[np.int64]] = []
        self._pending: list[NDArray[np.float32]] = []
        self._dim = 0

    def add_rows(
        self, rows: Iterable[SourceRow], advance: Callable[[int], None] = lambda documents: None
    ) -> None:
        """Adds rows; malformed ones are counted and left out.

        Args:
            rows: Rows as read.
            advance: Called with the number of documents added.
        """
        reported = 0
        remaining = self._merger.remaining() if self._merger else ()
        for number, document in enumerate(chain(self._prepared(rows), remaining), start=1):
            self._add(document)
            if number % _REPORT_EVERY == 0:
                advance(self._spool.documents - reported)
                reported = self._spool.documents
        advance(self._spool.documents - reported)

    def finish(self) -> None:
        """Finishes reading.

        Raises: InvalidRequest: too many malformed rows, or a duplicate id. NoDocuments: no document
            at all.
        """
        self._bad_rows.check()
        if self._spool.documents == 0:
            raise NoDocuments(
                "there is no document to build from "
                f"({counted(self._bad_rows.count, 'malformed row')} left out); add items, or check "
                "--corpus and the column names",
                field="corpus",
            )
        self._write_vectors()
        self._vectors.sync()
        self._spool.finish()

    def _prepared(self, rows: Iterable[SourceRow]) -> Iterator[PreparedDocument]:
        """Yields the documents of well-formed rows, merged if there is a merger."""
        for row in rows:
            try:
                item = clean_document(
                    row.item, self._options.attributes, title_only=self._options.title_only
                )
                vector = self._checked_vector(item)
            except InvalidRequest as error:
                helps = error.message == EMPTY_TEXT and row.item.title.strip()
                remedy = f"; {TITLE_ONLY_REMEDY}" if helps else ""
                self._bad_rows.add(row.location, f"{error.message}{remedy}")
                continue
            self.documents[row.location.source] += 1
            self.lists.see(row.location.source, row.item.attributes)
            if self._merger is not None:
                document = self._merger.merge_row(SourceRow(row.location, item), vector)
                if document is not None:
                    yield document
            else:
                chunks = self._options.chunks
                bounds = document_spans(item, chunks.max_tokens, chunks.overlap_sentences)
                matrix = None if vector is None else vector[np.newaxis]
                yield PreparedDocument(row.location, item, bounds, matrix)

    def _checked_vector(self, item: Item) -> NDArray[np.float32] | None:
        if self.has_vectors is None:
            self.has_vectors = item.vector is not None
        if not self.has_vectors:
            if item.vector is not None:
                raise InvalidRequest("it has a vector, but earlier documents have none")
            return None
        if item.vector is None:
            raise InvalidRequest("the vector is missing")
        unit_length = self._options.index.metric == COSINE
        vector = clean_vector(item.vector, self._dim, unit_length=unit_length)
        self._dim = vector.size
        return vector

    def _add(self, document: PreparedDocument) -> None:
        first = self._spool.chunks
        self._spool.add(document)
        if document.vectors is None:
            return
        found = document.vectors.shape[1]
        if self.has_vectors and found != (self._dim or found):
            raise InvalidRequest(
                f"document {document.item.id!r} ({document.location}) has a vector of {found} "
                f"numbers, those of the import have {self._dim}; import vectors of one dim, or "
                "delete it"
            )
        self._dim = found
        self._rows.append(np.arange(first, first + len(document.vectors)))
        self._pending.append(document.vectors)
        if len(self._pending) == _VECTORS_PER_WRITE:
            self._write_vectors()

    def _write_vectors(self) -> None:
        if self._pending:
            rows, vectors = np.concatenate(self._rows), np.concatenate(self._pending)
            # Reading restarts after a kill, so its vectors must be durable only at its end.
            self._vectors.write(rows, vectors, sync=False)
            self._rows.clear()
            self._pending.clear()
