"""The expected answers of a shard, computed in plain Python over all documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter, HitLevel, Scalar
from nearline.filters import admits
from retrieval.protocols.shard import FieldCounts
from tests.retrieval.small_snapshots import Document


class Row(NamedTuple):
    """A chunk with its score, in the order of hits: score negated, id, chunk."""

    negated: float
    id: str
    chunk: int


class Model:
    """Computes answers by scanning every chunk."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = {one.id: one for one in sorted(documents, key=lambda one: one.id)}

    def matching(self, filter: Filter | None) -> list[Document]:
        """Returns the documents that a filter admits, by id."""
        every = self.documents.values()
        return [one for one in every if filter is None or admits(filter, one.attributes)]

    def dense(
        self,
        query: NDArray[np.float32],
        k: int,
        level: HitLevel = HitLevel.DOCUMENT,
        filter: Filter | None = None,
    ) -> list[Row]:
        """Returns the k best chunks, or documents with the best chunk of each."""
        rows = sorted(
            Row(-float(score), one.id, chunk)
            for one in self.matching(filter)
            for chunk, score in enumerate((one.vectors @ query).tolist())
        )
        if level is HitLevel.DOCUMENT:
            rows = list({row.id: row for row in reversed(rows)}.values())[::-1]
            rows.sort()
        return rows[:k]

    def groups(self, query: NDArray[np.float32], k: int, field: str) -> list[tuple[Scalar, Row]]:
        """Returns the k best groups with the best document of each."""
        best: dict[Scalar, Row] = {}
        for row in self.dense(query, len(self.documents)):
            value = first(self.documents[row.id].attributes.get(field))
            if value is not None:
                best.setdefault(value, row)
        return list(best.items())[:k]

    def with_words(self, words: Sequence[str], filter: Filter | None = None) -> set[str]:
        """Returns the ids of the documents that have one of some words."""
        return {
            one.id
            for one in self.matching(filter)
            if any(set(words) & set(one.text[a:b].split()) for a, b in one.spans())
        }

    def counts(self, field: str, filter: Filter | None) -> FieldCounts:
        """Counts the documents that have each value of an attribute."""
        counted: Counter[Scalar] = Counter()
        missing = 0
        for one in self.matching(filter):
            value = one.attributes.get(field)
            values = value if isinstance(value, list) else [value]
            there = {first(each) for each in values} - {None}
            counted.update(there)
            missing += not there
        return FieldCounts(counted, missing)


def first(value: object) -> Scalar:
    """Returns the value of an attribute; the first value of a list."""
    one = (value[0] if value else None) if isinstance(value, list) else value
    assert one is None or isinstance(one, str | int | float)
    return one
