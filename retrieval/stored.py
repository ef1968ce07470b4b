"""What a shard has stored about its items: payload of hits, whole items, and lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Item, PayloadField
from retrieval.backends.vector_index import VectorIndex
from retrieval.items import ItemTable
from retrieval.shard import HitPayload


class StoredItems:
    """Reads items and their vectors; blocks for as long as the disk takes.

    Args:
        index: The vectors, a row per chunk.
        items: The documents.
        unit_length: True where vectors are kept at unit length (metric cosine).
    """

    def __init__(self, index: VectorIndex, items: ItemTable, *, unit_length: bool) -> None:
        self._index = index
        self._items = items
        self._unit_length = unit_length

    def fetch(
        self, ids: Sequence[str], payload: frozenset[PayloadField], chunks: Sequence[int] = ()
    ) -> list[Item]:
        """Reads items by id; those that do not exist are left out.

        Args:
            ids: Ids.
            payload: Parts wanted.
            chunks: Chunk number for each id: text and vector are then those of the chunk. Empty:
                those of the whole document.
        """
        items = self._items
        found = []
        for place, document_id in enumerate(ids):
            document = items.find(document_id)
            if document is None:
                continue
            chunk = chunks[place] if chunks else None
            if chunk is None or chunk < len(items.rows_of(document)):
                found.append(self._item(document_id, document, payload, chunk))
        return found

    def scan(
        self,
        after_id: str,
        limit: int,
        matching: NDArray[np.bool_] | None,
        payload: frozenset[PayloadField],
    ) -> list[Item]:
        """Reads the first items after an id, in id order.

        Args:
            after_id: Only greater ids; empty: from the start.
            limit: Most items.
            matching: (documents,) which to take; None: all.
            payload: Parts wanted.
        """
        items = self._items
        first = items.first_after(after_id) if after_id else 0
        documents: Iterable[int] = range(first, min(first + limit, items.documents))
        if matching is not None:
            documents = (first + np.flatnonzero(matching[first:])[:limit]).tolist()
        return [self._item(items.id(document), document, payload, None) for document in documents]

    def payloads(
        self,
        rows: NDArray[np.int64],
        documents: NDArray[np.int64],
        starts: Sequence[int],
        ends: Sequence[int],
        payload: frozenset[PayloadField],
    ) -> list[HitPayload]:
        """Gives the payload of hits: (n,) rows, their documents, and the bounds of their texts."""
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
        rows = items.rows_of(document)
        text = items.text(document) if PayloadField.TEXT in payload else ""
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
        )

    def _vector(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if len(rows) == 0:
            return None
        mean: NDArray[np.float32] = self._index.reconstruct(rows).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        return mean / np.float32(norm) if self._unit_length and norm > 0 else mean
