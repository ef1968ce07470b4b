"""Items for a collection without interactions: new ones first, and different from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.recommend.policies import NO_PAYLOAD
from retrieval.search import item_lookup, listing

# Items that are compared: more than most lists show.
_COMPARED = 128
_VECTOR = frozenset({c.PayloadField.VECTOR})


async def fresh_items(query: CandidateQuery, count: int) -> Sequence[str]:
    """Returns the ids of matching items, the same as long as no item changes.

    The candidates are the items that changed last, then the first 1,000 by id, in the order of a
    digest of their ids. Of the first 128, the newest comes first; each of the others is the one
    that is least similar to those before.

    Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter names
        an attribute that does not exist.
    """
    ids, found = await _matching(query, query.served.newest(_COMPARED))
    if len(ids) < max(count, _COMPARED):
        page = await listing.read_page(
            query.served,
            size=c.MAX_PAGE,
            token="",
            filter=query.filter,
            payload=NO_PAYLOAD,
            context=query.context,
        )
        others = sorted({one.id for one in page.items}.difference(ids), key=_digest)
        _, more = await _matching(query, others[: _COMPARED - len(ids)])
        ids, found = [*ids, *others], {**found, **more}
    first = [one for one in ids[:_COMPARED] if one in found]
    vectors = [found[one].vector for one in first]
    if first and all(one is not None for one in vectors):
        first = [first[at] for at in _spread(np.array(vectors, np.float32))]
    return [*first, *ids[_COMPARED:]]


async def _matching(
    query: CandidateQuery, ids: Sequence[str]
) -> tuple[list[str], Mapping[str, c.Item]]:
    """Returns those of some items that match, in order, and their vectors."""
    if not ids:
        return [], {}
    served, _, filter, context = query
    found = (await item_lookup.fetch_items(served, ids, _VECTOR, context, filter)).items
    return [one for one in ids if one in found], found


def _digest(item_id: str) -> bytes:
    return blake2b(item_id.encode(), digest_size=8).digest()


def _spread(vectors: NDArray[np.float32]) -> list[int]:
    """Returns the rows, the first one first, then the row farthest from those before."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    order, nearest = [0], vectors @ vectors[0]
    for _ in range(1, len(vectors)):
        nearest[order[-1]] = np.inf
        order.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[order[-1]])
    return order
