"""Candidates of a list, read from the shards with the fields that rules and callers need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from typing import NamedTuple

from nearline import contract as c
from retrieval.recommend.ranking import Block
from retrieval.recommend.selection import Candidate
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


class CandidateQuery(NamedTuple):
    """How candidates are read.

    payload: Fields to read of each item. filter: Optional; None matches all items.
    """

    served: ServedCollection
    payload: frozenset[c.PayloadField]
    filter: c.Filter | None
    context: RequestContext


class CandidatePool:
    """Candidates, best first, and the hit of each.

    expires: When the first of them expires; None if none does.

    Args:
        payload: Fields that the caller requested.
    """

    __slots__ = ("_attributes", "_text", "_title", "_vector", "candidates", "expires", "hits")

    def __init__(self, payload: frozenset[c.PayloadField]) -> None:
        self.candidates: list[Candidate] = []
        self.hits: dict[str, c.Hit] = {}
        self.expires: datetime | None = None
        # Checked once, because hashing an enum member costs more than all other work here.
        self._title = c.PayloadField.TITLE in payload
        self._text = c.PayloadField.TEXT in payload
        self._attributes = c.PayloadField.ATTRIBUTES in payload
        self._vector = c.PayloadField.VECTOR in payload

    def add(self, item: c.Item, score: float) -> None:
        """Appends an item, which has the fields that the rules and the caller need."""
        item_id, attributes, vector = item.id, item.attributes, item.vector
        if item.expires is not None:
            self.expires = min(self.expires or item.expires, item.expires)
        self.candidates.append(Candidate(item_id, score, attributes, vector))
        text = item.text if self._text else None
        self.hits[item_id] = c.Hit(
            id=item_id,
            score=score,
            end=len(text) if text else 0,
            title=item.title if self._title else None,
            text=text,
            attributes=attributes if self._attributes else None,
            vector=vector if self._vector else None,
        )

    def add_hit(self, hit: c.Hit) -> None:
        """Appends a hit, which has the fields that the rules need."""
        self.candidates.append(Candidate(hit.id, hit.score, hit.attributes))
        self.hits[hit.id] = hit if self._attributes else replace(hit, attributes=None)

    def lower_scores(self, start: int) -> None:
        """Lowers the scores of candidates from a place on to that of the one before."""
        most = self.candidates[start - 1].score if start else inf
        for place, one in enumerate(self.candidates[start:], start):
            if one.score > most:
                self.candidates[place] = one._replace(score=most)
                self.hits[one.id] = replace(self.hits[one.id], score=most)

    async def read(self, query: CandidateQuery, scored: Sequence[tuple[str, float]]) -> None:
        """Appends items in order; items that no longer exist or do not match are skipped.

        Args:
            scored: Ids with their scores.
        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter
            names an attribute that does not exist.
        """
        for start in range(0, len(scored), c.MAX_BATCH):
            batch = scored[start : start + c.MAX_BATCH]
            found = await item_lookup.fetch_items(
                query.served,
                [item_id for item_id, _ in batch],
                query.payload,
                query.context,
                query.filter,
            )
            items = found.items
            for item_id, score in batch:
                if (item := items.get(item_id)) is not None:
                    self.add(item, score)

    async def fill(self, query: CandidateQuery, blocks: AsyncIterator[Block], depth: int) -> None:
        """Reads ranked items block by block until the pool has `depth`, or no more are left.

        Args:
            blocks: Best first.
            depth: Candidates needed that exist and match.
        Raises: as `read`.
        """
        async for ids, scores in blocks:
            # Most time is lost by reading items that do not match: start with few, and read more if
            # few match.
            start, size = 0, depth - len(self.candidates)
            while start < len(ids) and len(self.candidates) < depth:
                part = ids[start : start + size]
                values = scores[start : start + size].tolist()
                await self.read(query, list(zip(part, values, strict=True)))
                start, size = start + size, 4 * size
            if len(self.candidates) >= depth:
                return
