"""Items for a collection without interactions: new ones first, and different from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np

from nearline import contract as c
from retrieval.recommend.brand_spread import ATTRIBUTES
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.search import item_lookup, listing
from retrieval.search.diversity import diverse_order

# Changed items that are considered, and items that are compared: more than most lists show.
_CHANGED, _COMPARED = 1_000, 128
_DIVERSITY = 0.5
_VECTOR = frozenset({c.PayloadField.VECTOR})
# Names of attributes that say since when there is an item, if they hold times.
_SINCE = ("added", "created", "released", "published", "added_at", "created_at", "release_date")


async def fresh_items(
    query: CandidateQuery, depth: int, hidden: frozenset[str] = frozenset()
) -> Sequence[str]:
    """Returns the ids of `depth` matching items, the same as long as no item changes.

    Items follow each other by maximal marginal relevance: one comes early if it is new and unlike
    those before. Compared are the 64 items that changed last, then 64 of the thousand that changed
    last, since a catalogue may arrive category by category, then the first thousand items by id:
    the latest first if an attribute says so, else in the order of a digest of their ids.

    Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter names
        an attribute that does not exist.
    """
    changed = query.served.newest(_CHANGED)
    half = _COMPARED // 2
    changed = [*changed[:half], *sorted(changed[half:], key=_digest)]
    ids, found = await _matching(query, changed[:_COMPARED])
    following = changed[_COMPARED:]
    if len(ids) < _COMPARED or depth + len(hidden) > len(changed):
        known = frozenset(changed)
        others = [one for one in await _others(query) if one not in known]
        left = _COMPARED - len(ids)
        more, of_more = await _matching(query, others[:left])
        ids, found = [*ids, *more], {**found, **of_more}
        following += others[left:]
    vectors = [found[one].vector for one in ids]
    if ids and all(one is not None for one in vectors):
        newness = np.linspace(1, 0, len(ids), endpoint=False)
        order = diverse_order(newness, np.array(vectors, np.float32), len(ids), _DIVERSITY)
        ids = [ids[at] for at in order]
    return [one for one in [*ids, *following] if one not in hidden][:depth]


async def _others(query: CandidateQuery) -> Sequence[str]:
    """Returns the first 1,000 matching items by id, in the order in which they are considered."""
    served, _, filter, context = query
    since = next((one for one in _SINCE if served.attribute_kinds.get(one) == "time"), "")
    page = await listing.read_page(
        served,
        size=c.MAX_PAGE,
        token="",
        filter=filter,
        payload=ATTRIBUTES if since else frozenset(),
        context=context,
    )
    items = sorted(page.items, key=lambda one: _digest(one.id))
    if since:  # All times are UTC.
        items.sort(key=lambda one: str((one.attributes or {}).get(since) or ""), reverse=True)
    return [one.id for one in items]


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
