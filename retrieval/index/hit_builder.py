"""Turns the rows that a search found into hits, with their payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Boost, PayloadField, Scalar
from nearline.items.structure import section_at
from retrieval.index.boosts import boost_values
from retrieval.index.protocols import Documents
from retrieval.index.top_units import TopRows
from retrieval.index.vectors.vector_index import VectorIndex
from retrieval.protocols.shard import HitPayload, ShardFilterPlan, ShardHits, ShardOptions

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without Arrow.
    from retrieval.index.attributes import SegmentAttributes


class HitBuilder:
    """Creates the hits of one segment; may be used from several threads.

    Args:
        index: The vectors.
        items: Documents; index row r is a chunk of document `items.documents_of(r)`.
        attributes: Attributes of the documents.
    """

    def __init__(self, index: VectorIndex, items: Documents, attributes: SegmentAttributes) -> None:
        self._index = index
        self._items = items
        self._attributes = attributes

    def hits(
        self, found: Sequence[TopRows], options: ShardOptions, plan: ShardFilterPlan | None
    ) -> list[ShardHits]:
        """Returns the hits of all queries of a batch, created together.

        After a search the CPU caches are full of vectors, so every Python step is expensive: each
        is taken once for the whole batch.
        """
        one = len(found) == 1
        rows = found[0].rows if one else np.concatenate([each.rows for each in found])
        scores = found[0].scores if one else np.concatenate([each.scores for each in found])
        items = self._items
        documents = items.documents_of(rows)
        chunks, starts, ends = items.chunks_of(rows, documents)
        ids = items.ids(documents)
        payloads: Sequence[HitPayload] = ()
        if options.payload:
            payloads = self._payloads(rows, documents, starts, ends, options.payload)
        groups = self.groups(options.grouping.field, rows) if options.grouping else ()
        boosts = self._boosts(options.boosts, documents) if options.boosts else ()
        all_scores = scores.tolist()
        hits = []
        at = 0
        for each in found:
            mine = slice(at, at + len(each.rows))
            hits.append(
                ShardHits(
                    ids[mine],
                    all_scores[mine],
                    chunks[mine],
                    starts[mine],
                    ends[mine],
                    payloads[mine],
                    None,
                    groups[mine],
                    plan,
                    boosts=boosts[mine],
                )
            )
            at = mine.stop
        return hits

    def _payloads(
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
                section_at(items.text(document), start) if PayloadField.SECTION in payload else (),
            )
            for at, (document, start, end) in enumerate(
                zip(documents.tolist(), starts, ends, strict=True)
            )
        ]

    def groups(self, field: str, rows: NDArray[np.int64]) -> list[Scalar]:
        """Returns the first value of an attribute for the document of each row."""
        return self._attributes.first_values(field, self._items.documents_of(rows))

    def _boosts(
        self, boosts: Sequence[Boost], documents: NDArray[np.int64]
    ) -> Sequence[Sequence[float]]:
        """Returns the values of all boosts for each document."""
        columns = [
            boost_values(boost, self._attributes.values(boost.field, documents)) for boost in boosts
        ]
        return list(zip(*columns, strict=True))
