"""Documents as the stores of all frameworks have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.integrations.metadata import NO_VECTOR, from_attributes

# Of reciprocal rank fusion, as Cormack, Clarke and Büttcher (2009) measured it.
_RANK_CONSTANT: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document: its text, its metadata, and its vector (d,) if the framework embeds.

    vector: None if Nearline embeds, or if there is none. score: Of a search, larger is better.
    record: What reads return as the metadata, if that is not what filters use.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Sequence[float] | NDArray[np.float32] | None = None
    score: float = 0.0
    record: Mapping[str, Any] | None = None


def dim_of(documents: Iterable[StoredDocument]) -> int:
    """Returns the number of dimensions of the first vector."""
    for one in documents:
        if one.vector is not None:
            return len(one.vector)
    raise InvalidRequest(
        "no document has a vector, so that a new collection cannot know their dimension; embed the "
        "documents first, or let Nearline embed them",
        field="vector",
    )


def from_item(item: c.Item) -> StoredDocument:
    none = item.vector is None or bool(item.attributes.get(NO_VECTOR))
    return StoredDocument(
        id=item.id,
        text=item.text,
        metadata=from_attributes(item.attributes),
        vector=None if none else item.vector,
    )


def from_hit(hit: c.Hit) -> StoredDocument:
    return StoredDocument(
        id=hit.id,
        text=hit.text or "",
        metadata=from_attributes(hit.attributes or {}),
        vector=hit.vector,
        score=hit.score,
    )


def fused(
    dense: Sequence[StoredDocument], lexical: Sequence[StoredDocument], weight: float
) -> list[StoredDocument]:
    """Merges two lists by reciprocal ranks. weight: Of the dense list, 0..1."""
    scores: dict[str, float] = {}
    for found, share in ((dense, weight), (lexical, 1.0 - weight)):
        for rank, one in enumerate(found, 1):
            scores[one.id] = scores.get(one.id, 0.0) + share / (_RANK_CONSTANT + rank)
    documents = {one.id: one for one in (*lexical, *dense)}
    best = sorted(scores, key=lambda id: (-scores[id], id))
    return [dataclasses.replace(documents[id], score=scores[id]) for id in best]
