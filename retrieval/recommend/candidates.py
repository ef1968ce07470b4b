"""Candidates with what rules and callers want of them, read from the shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.policies import NO_PAYLOAD
from retrieval.recommend.ranking import Block
from retrieval.recommend.rules import Candidate
from retrieval.search import item_lookup, listing
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Fewer matches are looked up before, more are met on the way.
_FEW = 5_000


class CandidateQuery(NamedTuple):
    """How items are read: from which snapshot, what of them, and which."""

    served: ServedCollection
    payload: frozenset[c.PayloadField]
    filter: c.Filter | None
    inquiry: RequestContext


async def allowed_mask(
    reading: CandidateQuery, learned: BehaviourModel, without: Iterable[str]
) -> NDArray[np.bool_]:
    """Returns which items are worth reading: (items,), an array of its own.

    Where many match the filter, all are: most of what is read matches. Where few do, those.

    Args:
        without: Ids of those that are not, whatever they match.
    Raises: as `CandidatePool.read`.
    """
    served, _, filter, inquiry = reading
    total = _FEW + 1
    if filter is not None:
        total, _ = await listing.count_items(served, filter, (), inquiry)
    allowed = np.full(len(learned.ids), total > _FEW)
    token, more = "", 0 < total <= _FEW
    while more:
        page = await listing.read_page(
            served, size=c.MAX_PAGE, token=token, filter=filter, payload=NO_PAYLOAD, inquiry=inquiry
        )
        allowed[learned.numbers_of(one.id for one in page.items)] = True
        token = page.next_page_token
        more = bool(token)
    allowed[learned.numbers_of(without)] = False
    return allowed


class CandidatePool:
    """Candidates, best first, and the hits that they become.

    expires: When the first of them that does expires.

    Args:
        shown: Parts of the items that the caller asked for.
    """

    __slots__ = ("_attributes", "_text", "_title", "_vector", "candidates", "expires", "hits")

    def __init__(self, shown: frozenset[c.PayloadField]) -> None:
        self.candidates: list[Candidate] = []
        self.hits: dict[str, c.Hit] = {}
        self.expires: datetime | None = None
        # Asked once: the hash of a member of an enum costs more than all else here.
        self._title = c.PayloadField.TITLE in shown
        self._text = c.PayloadField.TEXT in shown
        self._attributes = c.PayloadField.ATTRIBUTES in shown
        self._vector = c.PayloadField.VECTOR in shown

    def add(
        self,
        item: c.Item,
        score: float,
        vector: NDArray[np.float32] | None = None,
    ) -> None:
        """Adds an item behind the others.

        Args:
            item: With the parts that rules want and those that are shown.
            vector: Of the item; None: nobody wants it.
        """
        item_id, attributes = item.id, item.attributes
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
        """Adds a hit, with the parts that rules want, behind the others."""
        self.candidates.append(Candidate(hit.id, hit.score, hit.attributes))
        self.hits[hit.id] = hit if self._attributes else replace(hit, attributes=None)

    async def read(self, reading: CandidateQuery, scored: Sequence[tuple[str, float]]) -> None:
        """Adds items in order, without those that are gone or do not match.

        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: a filter on
            an attribute that does not exist.
        """
        for at in range(0, len(scored), c.MAX_BATCH):
            part = scored[at : at + c.MAX_BATCH]
            found = await item_lookup.fetch_items(
                reading.served,
                [one for one, _ in part],
                reading.payload,
                reading.inquiry,
                reading.filter,
            )
            items = found.items
            for one, score in part:
                if (item := items.get(one)) is not None:
                    self.add(item, score, item.vector)

    async def fill(
        self, reading: CandidateQuery, ids: Sequence[str], blocks: Iterator[Block], enough: int
    ) -> None:
        """Reads candidates block by block until there are enough of them, or no more.

        Args:
            ids: By item number.
            enough: Items that exist and match.
        Raises: as `read`.
        """
        for numbers, scores in blocks:
            # What is read in vain costs most: small steps first, larger ones where little matches.
            at, size = 0, enough - len(self.candidates)
            while at < len(numbers) and len(self.candidates) < enough:
                part = numbers[at : at + size].tolist()
                values = scores[at : at + size].tolist()
                await self.read(
                    reading, [(ids[one], score) for one, score in zip(part, values, strict=True)]
                )
                at, size = at + size, 4 * size
            if len(self.candidates) >= enough:
                return
