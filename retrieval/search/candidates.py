"""Finds candidates and histories, in the shards or in this process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.store.snapshot import shard_of
from retrieval.behaviour import generator_names as names
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.model import shard_depth
from retrieval.protocols.candidates import (
    NO_HISTORY,
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
    merge_candidates,
)
from retrieval.protocols.compute_threads import run_stoppable
from retrieval.search import fanout, listing
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# In this process, a filter with up to this many matches is looked up first; with more, most items
# that are read match anyway.
_SELECTIVE = 5_000
# Share of the time left that a shard that hangs may take: the list goes on without it.
_SHARE = 0.5
_R = TypeVar("_R")


async def find_candidates(
    served: ServedCollection, request: CandidatesRequest, context: RequestContext
) -> ShardCandidates:
    """Finds candidates among the items of all shards that answer; see `CandidatesRequest`.

    Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter names
        an attribute that does not exist.
    """
    # Merging what many shards found takes long, so that is done in a thread, too.
    return await score_candidates(served, request, context, lambda found: found)


async def score_candidates(
    served: ServedCollection,
    request: CandidatesRequest,
    context: RequestContext,
    score: Callable[[ShardCandidates], _R],
) -> _R:
    """Finds candidates, and computes something from them in the same thread.

    Raises: as `find_candidates`.
    """
    request = request._replace(min_watermark=context.min_watermark)
    local = served.local_behaviour
    if local is None:
        # Each hop to a thread takes as long as a tenth of the work.
        scored: list[_R] = []
        parts = await _parts(
            served,
            request,
            context,
            lambda found: scored.append(score(merge_candidates([found], request.most))),
        )
        if scored:
            return scored[0]
        return await run_stoppable(
            lambda stopped: score(merge_candidates(parts, request.most)), context.deadline
        )
    allowed = await _matches(served, local, request, context)
    return await run_stoppable(
        lambda stopped: score(local.find(request, allowed)), context.deadline
    )


async def read_history(
    served: ServedCollection, user_id: str, context: RequestContext
) -> StoredHistory:
    """Returns the interactions of a user that the snapshot was trained on, newest first.

    If the shard of the user does not answer, the history is empty, and the context says so.
    """
    if served.learned is None or not user_id:
        return NO_HISTORY
    request, local = HistoryRequest(user_id), served.local_behaviour
    if local is not None:
        return local.history(request)
    number, until = shard_of(user_id, len(served.shards)), context.share_of_time(_SHARE)
    call = served.shards[number].history(served.snapshot_id, request, until)
    found = await fanout.read_if_possible(
        call, number, context, collection=served.name, until=until
    )
    return NO_HISTORY if found is None else found


async def _parts(
    served: ServedCollection,
    request: CandidatesRequest,
    context: RequestContext,
    then: UseCandidates,
) -> list[ShardCandidates]:
    """Returns the candidates that the shards found, of those that answer.

    then: See `Shard.candidates`; only called if one server holds all shards.
    """
    if names.USER in request.generators:
        request = request._replace(most=shard_depth(request.most, len(served.shards)))
    # One call for the shards of each server, by the number of the first.
    by_server: dict[Hashable, list[int]] = {}
    for number, shard in enumerate(served.shards):
        by_server.setdefault(shard.server, []).append(number)
    also = {first: others for first, *others in by_server.values()}
    # The only server is waited for as long as possible.
    alone = len(also) == 1
    until = context.deadline if alone else context.share_of_time(_SHARE)
    calls = {
        first: served.shards[first].candidates(
            served.snapshot_id, request, until, others, then if alone else None
        )
        for first, others in also.items()
    }
    answers = await fanout.gather_reads(calls, context, collection=served.name, until=until)
    for first, others in also.items():
        # What is known of the first is known of all.
        for number in others:
            if first in answers.failures:
                context.failures[number] = answers.failures[first]
            else:
                context.record_applied(number, (answers.results[first].applied,))
    return [*answers.results.values()]


async def _matches(
    served: ServedCollection,
    local: BehaviourShard,
    request: CandidatesRequest,
    context: RequestContext,
) -> NDArray[np.bool_] | None:
    """Returns the items that match a selective filter; None for all items."""
    if request.filter is None or request.reasons_for is not None:
        return None
    total, _ = await listing.count_items(served, request.filter, (), context)
    if total > _SELECTIVE:
        return None
    ids: list[str] = []
    token, more = "", total > 0
    while more:
        page = await listing.read_page(
            served,
            size=c.MAX_PAGE,
            token=token,
            filter=request.filter,
            payload=frozenset(),
            context=context,
        )
        ids += [item.id for item in page.items]
        token = page.next_page_token
        more = bool(token)
    return local.mask_of(keys_of(ids))
