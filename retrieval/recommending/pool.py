"""Candidates with what rules and callers want of them, read from the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval import examples, listing
from retrieval.behaviour.learned import Learned
from retrieval.inquiry import Inquiry
from retrieval.recommending.ranking import Block
from retrieval.recommending.rules import Candidate
from retrieval.served import ServedCollection

# Fewer matches are looked up before, more are met on the way.
_FEW = 5_000
_NOTHING: frozenset[c.PayloadField] = frozenset()


class Reading(NamedTuple):
    """How items are read: from which snapshot, what of them, and which."""

    served: ServedCollection
    payload: frozenset[c.PayloadField]
    filter: c.Filter | None
    inquiry: Inquiry


async def matching(reading: Reading, learned: Learned) -> NDArray[np.bool_] | None:
    """Gives which items match a filter, where they are few: (items,); None: they are many.

    Among many, most of what is read matches soon; among few it would be read in vain.

    Raises: as `Pool.read`; the filter must be one.
    """
    served, _, filter, inquiry = reading
    total, _ = await listing.count(served, filter, (), inquiry)
    if total > _FEW:
        return None
    found = np.zeros(len(learned.ids), np.bool_)
    token = ""
    while total:
        page = await listing.page(
            served, size=c.MAX_PAGE, token=token, filter=filter, payload=_NOTHING, inquiry=inquiry
        )
        found[[at for one in page.items if (at := learned.number_of(one.id)) is not None]] = True
        token = page.next_page_token
        if not token:
            break
    return found


@dataclass(slots=True)
class Pool:
    """Candidates, best first, and the items that they are."""

    candidates: list[Candidate] = field(default_factory=list)
    items: dict[str, c.Item] = field(default_factory=dict)

    async def read(self, reading: Reading, scored: Sequence[tuple[str, float]]) -> None:
        """Adds items in order, without those that are gone or do not match.

        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: a filter on
            an attribute that does not exist.
        """
        for at in range(0, len(scored), c.MAX_BATCH):
            part = scored[at : at + c.MAX_BATCH]
            found = await examples.fetch(
                reading.served,
                [one for one, _ in part],
                reading.payload,
                reading.inquiry,
                reading.filter,
            )
            self.add(found.items, part, reading.payload)

    def add(
        self,
        items: dict[str, c.Item],
        scored: Sequence[tuple[str, float]],
        payload: frozenset[c.PayloadField],
    ) -> None:
        """Adds those of some items that were read."""
        self.items |= items
        attributed = c.PayloadField.ATTRIBUTES in payload
        self.candidates += [
            Candidate(one, score, item.attributes if attributed else None, item.vector)
            for one, score in scored
            if (item := items.get(one)) is not None
        ]

    async def fill(
        self, reading: Reading, ids: Sequence[str], blocks: Iterator[Block], enough: int
    ) -> None:
        """Reads candidates block by block until there are enough of them, or no more.

        Args:
            ids: By item number.
            enough: Items that exist and match.
        Raises: as `read`.
        """
        for numbers, scores in blocks:
            # What is read in vain costs most: small steps first, larger ones where little matches.
            at, size = 0, enough
            while at < len(numbers) and len(self.candidates) < enough:
                part = numbers[at : at + size].tolist()
                values = scores[at : at + size].tolist()
                await self.read(
                    reading, [(ids[one], score) for one, score in zip(part, values, strict=True)]
                )
                at, size = at + size, 4 * size
            if len(self.candidates) >= enough:
                return

    def hit(self, candidate: Candidate, payload: frozenset[c.PayloadField]) -> c.Hit:
        """Gives the hit of a candidate, with the parts that the caller asked for."""
        item = self.items[candidate.id]
        text = item.text if c.PayloadField.TEXT in payload else None
        return c.Hit(
            id=item.id,
            score=candidate.score,
            end=len(text or ""),
            title=item.title if c.PayloadField.TITLE in payload else None,
            text=text,
            attributes=item.attributes if c.PayloadField.ATTRIBUTES in payload else None,
            vector=item.vector if c.PayloadField.VECTOR in payload else None,
        )
