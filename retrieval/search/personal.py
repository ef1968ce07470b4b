"""The personal order of a search: its best hits, ordered by the taste of the user as well.

A hit's new place is decided by its score of the search plus the weighted score of the models of
behaviour, both standardised over the hits compared. Hits that no model scores count as the worst.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from nearline.tracing.spans import stage
from retrieval.behaviour import generator_names as names
from retrieval.behaviour.item_keys import keys_of
from retrieval.protocols.candidates import CandidatesRequest, KeyedHistory, ShardCandidates
from retrieval.protocols.request_validation import check_id
from retrieval.search.candidates import find_candidates, score_candidates
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from retrieval.search.second_stage import combined

# Best hits that are compared, whatever k is, so that each page has the same order.
CANDIDATES = 100
# Share of the remaining time for the models; then the search continues without them.
_SHARE_OF_TIME = 0.5
_RankedHits = list[tuple[int, c.Hit]]


class Taste(NamedTuple):
    """The interactions that hits are ordered by besides the query, and their weight.

    history: At least one interaction of the user and the session. weight: 0..1, above 0.
    """

    history: KeyedHistory
    weight: float


def check_personal(queries: int, options: c.SearchOptions) -> None:
    """Raises InvalidRequest if a search cannot be personal, or names nobody."""
    check_id(options.user_id, "options.user_id")
    check_id(options.session_id, "options.session_id")
    problem = ""
    if not 0 <= options.personal <= 1:
        problem = "0..1 is allowed"
    elif options.personal and not (options.user_id or options.session_id):
        problem = "the search is for nobody: set options.user_id or options.session_id"
    elif options.personal and (queries > 1 or options.grouping is not None):
        problem = "it needs one query without grouping: send queries one by one, or leave it unset"
    if problem:
        raise InvalidRequest(
            f"personal is {options.personal:g}; {problem}", field="options.personal"
        )


async def order_by_taste(
    collection: ServedCollection, ranked: _RankedHits, taste: Taste, context: RequestContext
) -> tuple[_RankedHits, frozenset[str]]:
    """Returns the hits with the first 100 in a new order, and the ids of those that rose.

    Scores stay in their places: the first hit has the best one. If the models cannot be read, the
    order stays.

    Args:
        ranked: Hits with the numbers of their shards, best first.
        context: Records why the order is not personal.
    """
    pool, rest = ranked[:CANDIDATES], ranked[CANDIDATES:]
    model = collection.learned
    if model is None or len(pool) < 2:
        return ranked, frozenset()

    def score(found: ShardCandidates) -> Mapping[str, float]:
        scored = model.blend_user(found, repeats=True)
        return dict(zip(found.ids_of(scored.rows), scored.scores.tolist(), strict=True))

    request = _request(taste, CANDIDATES)._replace(among=keys_of(hit.id for _, hit in pool))
    try:
        with stage("personal"):
            async with asyncio.timeout_at(context.share_of_time(_SHARE_OF_TIME)):
                scores = await score_candidates(collection, request, context, score)
    except (NearlineError, TimeoutError) as error:
        why = error.message if isinstance(error, NearlineError) else "the models took too long"
        said = f"hits are in the order of the search, not personal: {why}"
        context.reduced = "; ".join(filter(None, (context.reduced, said)))
        return ranked, frozenset()
    if not scores:
        return ranked, frozenset()
    by_taste = np.array([scores.get(hit.id, 0.0) for _, hit in pool])
    found = np.array([hit.score for _, hit in pool], np.float64)
    order = np.argsort(-combined(found, by_taste, taste.weight), kind="stable").tolist()
    ordered = [pool[place] for place in order]
    for (_, hit), value in zip(ordered, found.tolist(), strict=True):
        hit.score = value
    risen = frozenset(pool[old][1].id for new, old in enumerate(order) if new < old)
    return ordered + rest, risen


async def give_reasons(
    collection: ServedCollection,
    ranked: _RankedHits,
    risen: frozenset[str],
    taste: Taste,
    context: RequestContext,
) -> None:
    """Adds reasons to the hits that rose in a personal order; none if no shard answers."""
    hits = [hit for _, hit in ranked if hit.id in risen]
    if not hits:
        return
    request = _request(taste, 0)._replace(reasons_for=keys_of(hit.id for hit in hits))
    with contextlib.suppress(NearlineError):
        found = await find_candidates(collection, request, context)
        for hit, reasons in zip(hits, found.reasons, strict=True):
            hit.reasons = reasons


def _request(taste: Taste, most: int) -> CandidatesRequest:
    return CandidatesRequest([names.USER], taste.history, most, repeats=True)
