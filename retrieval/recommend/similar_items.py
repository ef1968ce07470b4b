"""Candidates where behaviour says nothing: items whose vectors are like those of others."""

from __future__ import annotations

from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import NotFound
from retrieval.embedders.endpoints import Embedders
from retrieval.recommend.candidates import CandidateQuery
from retrieval.search import executor, listing
from retrieval.search.queries import prepare_queries

# Of what somebody had, the last few say what they look for now.
_NEWEST = 20


class SimilarItems:
    """Finds items by the vectors of others.

    Args:
        embedders: Asked for nothing, since items have their vectors.
    """

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders

    async def to(
        self, reading: CandidateQuery, like: Sequence[str], enough: int, without: frozenset[str]
    ) -> list[tuple[c.Item, float]] | None:
        """Returns items like some others, best first, with cosine or inner product.

        Args:
            like: Ids, the most telling first; those that do not exist are passed over.
            enough: Items wanted.
            without: Ids that are not wanted.
        Returns: None: none of `like` exists.
        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: a filter on
            an attribute that does not exist.
        """
        served, payload, filter, inquiry = reading
        ids = tuple(dict.fromkeys(like))[:_NEWEST]
        query = c.Query(item_ids=ids)
        try:
            asking = await prepare_queries(
                served, self._embedders, [query], ["item_ids"], c.SearchMode.DENSE, inquiry
            )
        except NotFound:
            return None
        options = c.SearchOptions(
            k=min(enough + len(without), c.MAX_K), payload=payload, filter=filter
        )
        outcome = await executor.search(served, asking.asked[0], options, inquiry)
        wanted = [hit for hit in outcome.lists[0] if hit.id not in without]
        return [(_item(hit), hit.score) for hit in wanted[:enough]]

    async def any(self, reading: CandidateQuery, enough: int) -> Sequence[c.Item]:
        """Returns the first items in the order of ids, where nothing speaks for any.

        Raises: as `to`.
        """
        page = await listing.read_page(
            reading.served,
            size=min(enough, c.MAX_PAGE),
            token="",
            filter=reading.filter,
            payload=reading.payload,
            inquiry=reading.inquiry,
        )
        return page.items


def _item(hit: c.Hit) -> c.Item:
    return c.Item(
        id=hit.id,
        title=hit.title or "",
        text=hit.text or "",
        attributes=hit.attributes or {},
        vector=hit.vector,
    )
