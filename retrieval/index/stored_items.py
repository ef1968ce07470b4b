"""Reads stored items of a segment: payloads of hits, single items, and listings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Item, PayloadField
from retrieval.index.protocols import Documents
from retrieval.index.vectors.vector_index import VectorIndex
from retrieval.protocols.shard import HitPayload

_NO_ROWS = np.empty(0, np.int64)


class StoredItems:
    """Reads items and their vectors; blocks on disk reads.

    Args:
        index: The vectors, one row per chunk.
        items: The documents.
        unit_length: Whether stored vectors have unit length (metric cosine).
    """

    def __init__(self, index: VectorIndex, items: Documents, *, unit_length: bool) -> None:
        self._index = index
        self._items = items
        self._unit_length = unit_length

    def fetch(
        self,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        chunks: Sequence[int] = (),
        alive: NDArray[np.bool_] | None = None,
    ) -> list[Item | None]:
        """Reads items by id.

        Args:
            ids: Ids.
            payload: Fields to read.
            chunks: A chunk number for each id: text and vector are then those of the chunk. If
                empty, they are those of the whole document.
            alive: (documents,) bool, which documents may be read; None means all.
        Returns: One item per id, in order; None for items that do not exist or may not be read.
        """
        items = self._items
        found: list[Item | None] = []
        for place, document_id in enumerate(ids):
            document = items.find(document_id)
            chunk = chunks[place] if chunks else None
            if (
                document is None
                or (alive is not None and not alive[document])
                or (chunk is not None and chunk >= len(items.rows_of(document)))
            ):
                found.append(None)
            else:
                found.append(self._item(document_id, document, payload, chunk))
        return found

    def scan(
        self,
        after_id: str,
        matching: NDArray[np.bool_] | None,
        payload: frozenset[PayloadField],
    ) -> Iterator[Item]:
        """Returns the items after an id, in id order; each is read when it is consumed.

        Args:
            after_id: Only greater ids are read; empty starts from the beginning.
            matching: (documents,) bool, which documents to read; None means all.
            payload: Fields to read.
        """
        items = self._items
        documents: Iterable[int] = items.following(after_id)
        if matching is not None:
            # Indexing bytes is several times as fast as indexing an array.
            selected = matching.tobytes()
            documents = (document for document in documents if selected[document])
        return (self._item(items.id(document), document, payload, None) for document in documents)

    def payloads(
        self,
        rows: NDArray[np.int64],
        documents: NDArray[np.int64],
        starts: Sequence[int],
        ends: Sequence[int],
        payload: frozenset[PayloadField],
    ) -> list[HitPayload]:
        """Returns the payloads of hits.

        Args:
            rows, documents: (n,) rows and their documents.
            starts, ends: n code points, the bounds of the text of each row.
            payload: Fields to read.
        """
        items = self._items
        vectors = self._index.reconstruct(rows) if PayloadField.VECTOR in payload else None
        return [
            HitPayload(
                items.title(document) if PayloadField.TITLE in payload else None,
                items.text(document)[start:end] if PayloadField.TEXT in payload else None,
                items.attributes(document) if PayloadField.ATTRIBUTES in payload else None,
                None if vectors is None else vectors[at],
            )
            for at, (document, start, end) in enumerate(
                zip(documents.tolist(), starts, ends, strict=True)
            )
        ]

    def _item(
        self, document_id: str, document: int, payload: frozenset[PayloadField], chunk: int | None
    ) -> Item:
        items = self._items
        text = items.text(document) if PayloadField.TEXT in payload else ""
        rows = _NO_ROWS
        if chunk is not None or PayloadField.VECTOR in payload:
            rows = items.rows_of(document)
        if chunk is not None:
            rows = rows[chunk : chunk + 1]
            if text:
                _, starts, ends = items.chunks_of(rows, np.array([document]))
                text = text[starts[0] : ends[0]]
        return Item(
            id=document_id,
            title=items.title(document) if PayloadField.TITLE in payload else "",
            text=text,
            attributes=items.attributes(document) if PayloadField.ATTRIBUTES in payload else {},
            vector=self._vector(rows) if PayloadField.VECTOR in payload else None,
            expires=items.expires(document),
            version=items.version(document),
        )

    def _vector(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if len(rows) == 0:
            return None
        mean: NDArray[np.float32] = self._index.reconstruct(rows).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        return mean / np.float32(norm) if self._unit_length and norm > 0 else mean
