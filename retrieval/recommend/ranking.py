"""Ranks the candidates of a list by behaviour, before any rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval.behaviour import generator_names as names
from retrieval.behaviour.blend import DEPTH
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.popularity_discount import discount_popularity
from retrieval.protocols.candidates import (
    NO_EVENTS,
    TRAINED,
    UNKNOWN,
    CandidatesRequest,
    KeyedHistory,
    ShardCandidates,
)
from retrieval.protocols.scored_rows import ScoredRows
from retrieval.recommend.user_profile import history_of_items
from retrieval.search.candidates import find_candidates, score_candidates
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Sources of a ranking.
ITEMS = "items"
HISTORY = "history"
POPULAR = "popular"
# A list that hides more items than this, or whose candidates were nearly all deleted, ends early.
_MOST_FOLLOWING = 16_384
# Keys of so few ids are kept.
_FEW = 128
# Items that go with the items of a request: more than any list of one item has.
_MOST_RELATED = 1_000
_R = TypeVar("_R")


class Block(NamedTuple):
    """Items of a ranking, best first: ids and scores (n,) float32."""

    ids: Sequence[str]
    scores: NDArray[np.float32]


class ItemRanking(NamedTuple):
    """A ranking in blocks; the following ones are read from the shards when they are requested.

    source: Source of the first items: ITEMS, HISTORY or POPULAR. first: The best items.
    undiscounted: Ids of `first` in the order without the discount for popularity. is_live: Whether
    new interactions may change it. reasons: Of items that live interactions speak for, by id.
    """

    source: str
    first: Block
    undiscounted: Sequence[str]
    following: AsyncIterator[Block]
    is_live: bool = False
    reasons: Mapping[str, Sequence[str]] = {}

    async def blocks(self) -> AsyncIterator[Block]:
        """Yields all blocks."""
        yield self.first
        async for block in self.following:
            yield block


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingQuery:
    """Which items may be ranked, and how many are needed.

    model: None if the snapshot has none; functions that need it then return None. depth: Items of
    the first block, unless fewer are scored. hidden: Ids of items to leave out.
    history: Of the user. had: The items of the history, if all of them are left out; else empty.
    segments: Numbers of the segments that the user is in.
    """

    served: ServedCollection
    model: BehaviourModel | None
    context: RequestContext
    depth: int
    filter: c.Filter | None = None
    hidden: frozenset[str] = frozenset()
    history: KeyedHistory = NO_EVENTS
    had: frozenset[str] = frozenset()
    segments: tuple[int, ...] = ()

    async def find(self, request: CandidatesRequest) -> ShardCandidates:
        """Finds candidates, without the items to leave out."""
        return await find_candidates(self.served, self._without_hidden(request), self.context)

    async def score(self, request: CandidatesRequest, score: Callable[[ShardCandidates], _R]) -> _R:
        """Finds candidates, and computes something from them in a thread."""
        request = self._without_hidden(request)
        return await score_candidates(self.served, request, self.context, score)

    def _without_hidden(self, request: CandidatesRequest) -> CandidatesRequest:
        hidden = self.hidden
        if request.history is self.history:
            # Shards have the keys of the history already.
            hidden, request = hidden - self.had, request._replace(hide_history=bool(self.had))
        history = request.history._replace(segments=self.segments)
        return request._replace(hidden=_keys_of(hidden), filter=self.filter, history=history)


async def rank_by_items(
    query: RankingQuery, item_ids: Sequence[str], debias: float | None = None
) -> ItemRanking | None:
    """Ranks items by how well they go with some items; the nearest by factors follow.

    Args:
        item_ids: At least one.
        debias: 0..1, see `discount_popularity`; None uses the model's value.
    Returns: None if none of the items has interactions.
    """
    if query.model is None:
        return None
    given = history_of_items(item_ids)
    debias = query.model.similar_debias if debias is None else debias
    found = await query.find(
        CandidatesRequest([names.GOES_WITH], given, _MOST_RELATED, trained_only=True)
    )
    if not (found.events == TRAINED).any():
        return None
    (goes_with,) = found.scored
    following = _following(query, names.NEAREST, given, goes_with.rows, trained_only=True)
    return _ranking(ITEMS, found, found.scored, debias, following)


async def rank_for_user(
    query: RankingQuery, *, repeats: bool, debias: float | None = None
) -> ItemRanking | None:
    """Ranks items by what may come next after the history; the nearest by factors follow.

    If the snapshot has a ranker, it orders the best items. Among those that follow are new items,
    placed by their content.

    Args:
        repeats: Whether items of the history may be listed again.
        debias: As in `rank_by_items`.
    Returns: None if the snapshot has none of the items of the history.
    """
    history, model = query.history, query.model
    if model is None:
        return None
    debias = model.debias(repeats=repeats) if debias is None else debias

    def score(found: ShardCandidates) -> tuple[_FirstItems, ScoredRows] | None:
        if not (found.events != UNKNOWN).any():
            return None
        scored = model.score_user(found, history, repeats=repeats)
        return _first_items(found, [scored], debias), scored

    request = CandidatesRequest([names.USER], history, DEPTH, repeats=repeats)
    ranked = await query.score(request, score)
    if ranked is None:
        return None
    first, scored = ranked
    return ItemRanking(HISTORY, *first, _following(query, names.NEAREST, history, scored.rows))


async def rank_for_everyone(query: RankingQuery, generator: str, source: str) -> ItemRanking | None:
    """Ranks items by a statistic of theirs; the others follow by their number of interactions."""
    if query.model is None:
        return None
    found = await query.find(CandidatesRequest([generator], NO_EVENTS, query.depth))
    following = _following(query, names.COUNTS, NO_EVENTS, found.scored[0].rows)
    return _ranking(source, found, found.scored, 0.0, following)


async def rank_repurchases(query: RankingQuery, now_us: int) -> ItemRanking | None:
    """Ranks the items of the history, and no others, by how due they are.

    Returns: None if the snapshot has none of them.
    """
    if query.model is None:
        return None
    found = await query.find(
        CandidatesRequest([names.REPURCHASE], query.history, _MOST_FOLLOWING, now_us=now_us)
    )
    if not (found.events != UNKNOWN).any():
        return None
    return _ranking(HISTORY, found, found.scored, 0.0, _nothing())


async def position_of(ranking: ItemRanking, item_id: str) -> int:
    """Returns the 1-based rank of an item, or 0 if it is not ranked. Consumes the ranking."""
    before = 0
    async for block in ranking.blocks():
        ids = list(block.ids)
        if item_id in ids:
            return before + ids.index(item_id) + 1
        before += len(ids)
    return 0


def places_gained(ranking: ItemRanking) -> dict[str, int]:
    """Returns how many places the discount moved items up; negative: down."""
    first = {item_id: place for place, item_id in enumerate(ranking.undiscounted)}
    return {item_id: first[item_id] - place for place, item_id in enumerate(ranking.first.ids)}


class _FirstItems(NamedTuple):
    """The first items of an `ItemRanking`."""

    first: Block
    undiscounted: Sequence[str]


def _first_items(found: ShardCandidates, parts: Sequence[ScoredRows], debias: float) -> _FirstItems:
    """Ranks the items of all parts, part by part, each with its discount."""
    plain, moved = [], []
    for part in parts:
        # The rows are ascending, which makes this search fast. Places are in the order of numbers.
        places = np.searchsorted(found.numbers, part.rows)
        order = part.best_first()
        places, scores = places[order], part.scores[order]
        plain.append(places)
        moved.append(discount_popularity(places, scores, found.levels[places], debias))
    ids = found.ids.take(np.concatenate([places for places, _ in moved]))
    before = found.ids.take(np.concatenate(plain)) if debias else ids
    return _FirstItems(Block(ids, np.concatenate([scores for _, scores in moved])), before)


def _ranking(
    source: str,
    found: ShardCandidates,
    parts: Sequence[ScoredRows],
    debias: float,
    following: AsyncIterator[Block],
) -> ItemRanking:
    """Returns a ranking whose first block has the items of all parts, each with its discount."""
    return ItemRanking(source, *_first_items(found, parts, debias), following)


async def _following(
    query: RankingQuery,
    generator: str,
    history: KeyedHistory,
    ranked: NDArray[np.int64],
    *,
    trained_only: bool = False,
) -> AsyncIterator[Block]:
    """Yields the items that a generator finds and that are not ranked yet.

    Args:
        ranked: Numbers of the items ranked before. Scores are lowered below theirs.
    """
    shift = None
    first = min(len(ranked) + 4 * query.depth, _MOST_FOLLOWING)
    for most in (first, _MOST_FOLLOWING):
        found = await query.find(
            CandidatesRequest([generator], history, most, trained_only=trained_only)
        )
        (scored,) = found.scored
        numbers, scores = scored.without(ranked).ranked()
        if len(numbers):
            shift = max(0.0, float(scores[0])) if shift is None else shift
            yield Block(found.ids_of(numbers), scores - np.float32(shift))
        if len(scored.rows) < most:
            return
        ranked = np.union1d(ranked, numbers)


async def _nothing() -> AsyncIterator[Block]:
    return
    yield


def _keys_of(hidden: frozenset[str]) -> NDArray[np.uint64]:
    # Most often, these are the items that the policy blocks.
    return _kept_keys_of(hidden) if len(hidden) <= _FEW else keys_of(hidden)


@lru_cache(128)
def _kept_keys_of(hidden: frozenset[str]) -> NDArray[np.uint64]:
    return keys_of(hidden)
