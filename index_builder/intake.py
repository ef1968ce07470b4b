"""Takes rows as read: checks, cuts and spools them, and counts what is malformed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from index_builder.attributes import clean, encode
from index_builder.bad_rows import BadRows
from index_builder.chunking import chunk_spans
from index_builder.records import COSINE, MAX_DIM, BuildOptions, Row
from index_builder.spool import Spool
from index_builder.vector_file import VectorFile
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.sentences import Span, estimate_tokens

MAX_ID_BYTES = 512
_VECTORS_PER_WRITE = 4096
_TELL_EVERY = 256


class Intake:
    """Fills the spool, and the vector file where documents bring vectors.

    Args:
        spool: Where documents go; emptied first.
        vectors: Where vectors go; emptied first where documents bring them.
        options: How to cut, and what to allow.
        bad_rows: Where malformed rows are counted.
        require_vectors: Refuse documents without a vector; False takes vectors where the first
            document has one.
    """

    def __init__(
        self,
        spool: Spool,
        vectors: VectorFile,
        options: BuildOptions,
        bad_rows: BadRows,
        *,
        require_vectors: bool = False,
    ) -> None:
        self._spool = spool
        self._vectors = vectors
        self._options = options
        self._bad_rows = bad_rows
        self.has_vectors: bool | None = True if require_vectors else None
        self.documents: Counter[str] = Counter()
        self._waiting: list[NDArray[np.float32]] = []
        self._written = 0
        self._dim = 0

    def take(
        self, rows: Iterable[Row], advance: Callable[[int], None] = lambda documents: None
    ) -> None:
        """Takes rows; a malformed one is counted and left out.

        Args:
            rows: As read.
            advance: Told of documents taken.
        """
        told = 0
        for number, row in enumerate(rows, start=1):
            if number % _TELL_EVERY == 0:
                advance(self._spool.documents - told)
                told = self._spool.documents
            try:
                item = self._checked(row.item)
                vector = self._checked_vector(item)
            except InvalidRequest as error:
                self._bad_rows.add(row.place, error.message)
                continue
            self._spool.add(Row(row.place, item), self._spans(item))
            self.documents[row.place.source] += 1
            if vector is not None:
                self._waiting.append(vector)
                if len(self._waiting) == _VECTORS_PER_WRITE:
                    self._write_vectors()
        advance(self._spool.documents - told)

    def finish(self) -> None:
        """Ends reading.

        Raises: InvalidRequest: too many malformed rows, an id twice, or no document at all.
        """
        self._bad_rows.check()
        if self._spool.documents == 0:
            raise InvalidRequest(
                f"there is no document to build from ({self._bad_rows.count} malformed rows left "
                "out); check --corpus and the column names",
                field="corpus",
            )
        self._write_vectors()
        self._spool.finish()

    def _checked(self, item: Item) -> Item:
        if not item.id:
            raise InvalidRequest("the id is empty")
        attributes = clean(item.attributes, self._options.attributes)
        try:
            id_bytes = len(item.id.encode())
            for text in (item.title, item.text, encode(attributes)):
                text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"a text holds half a surrogate pair (\\u{ord(error.object[error.start]):04x}) and "
                "is not valid Unicode"
            ) from error
        if id_bytes > MAX_ID_BYTES:
            raise InvalidRequest(f"the id has {id_bytes} bytes, {MAX_ID_BYTES} are allowed")
        if not item.text.strip() and item.vector is None:
            if not self._options.title_only:
                raise InvalidRequest("the text is empty")
            if not item.title.strip():
                raise InvalidRequest("text and title are empty")
        return Item(
            id=item.id,
            title=item.title,
            text=item.text,
            attributes=attributes,
            vector=item.vector,
        )

    def _checked_vector(self, item: Item) -> NDArray[np.float32] | None:
        if self.has_vectors is None:
            self.has_vectors = item.vector is not None
        if not self.has_vectors:
            if item.vector is not None:
                raise InvalidRequest("it has a vector, the documents before have none")
            return None
        if item.vector is None:
            raise InvalidRequest("the vector is missing")
        with np.errstate(over="ignore"):
            # A float64 beyond float32 becomes infinite, and is found to be so.
            return self._fit(np.asarray(item.vector, np.float32))

    def _fit(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        if vector.ndim != 1 or not 1 <= vector.size <= MAX_DIM:
            raise InvalidRequest(
                f"the vector has shape {vector.shape}; (d,) with d in 1..{MAX_DIM} is needed"
            )
        if self._dim and vector.size != self._dim:
            raise InvalidRequest(
                f"the vector has {vector.size} numbers, the first one has {self._dim}"
            )
        # In float64, where no sum of squares of finite float32 numbers overflows.
        norm = math.sqrt(float(np.square(vector, dtype=np.float64).sum()))
        if not math.isfinite(norm):
            raise InvalidRequest("the vector has a NaN or infinite number")
        if self._options.index.metric == COSINE:
            if norm == 0:
                raise InvalidRequest("the vector is all zeros and has no direction")
            vector = (vector / norm).astype(np.float32)
        self._dim = vector.size
        return vector

    def _spans(self, item: Item) -> list[Span]:
        limit = self._options.chunks.max_tokens
        if item.vector is not None or limit == 0:
            return [(0, len(item.text))]
        # The title stands before every chunk; leave at least half of the room to the text.
        room = max(limit - estimate_tokens(item.title), (limit + 1) // 2)
        return chunk_spans(item.text, room, self._options.chunks.overlap_sentences)

    def _write_vectors(self) -> None:
        if self._waiting:
            self._vectors.write(self._written, np.stack(self._waiting))
            self._written += len(self._waiting)
            self._waiting.clear()
