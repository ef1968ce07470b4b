"""Ranks the items of a snapshot by behaviour, before any rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import EMPTY_HISTORY, History
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.popularity import PopularityGenerator
from retrieval.behaviour.popularity_discount import WINDOW, discount_popularity
from retrieval.index.best_rows import top_k_with_ties

# Sources of a ranking.
ITEMS = "items"
HISTORY = "history"
POPULAR = "popular"


Block: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


class ItemRanking(NamedTuple):
    """Item numbers and scores, best first, in blocks that are computed when they are requested.

    source: Source of the first items: ITEMS, HISTORY or POPULAR.
    """

    source: str
    blocks: Iterator[Block]


def rank_items(
    model: BehaviourModel,
    given: History,
    history: History,
    *,
    repeats: bool,
    allowed: NDArray[np.bool_],
    first: int,
    debias: float | None = None,
) -> ItemRanking:
    """Ranks all allowed items for some items or a user; see `strategies` for other rankings.

    Given items are ranked by the items that go with them, a history by the items that may come
    next. If the snapshot has a ranker, it orders the best of the latter. Items that no generator
    scores follow by the user's factors: among them are new items, placed by their content. Without
    items and history, all items are ranked by popularity; in all other rankings, the popularity of
    the best items is discounted. The scores of the items that follow are lower than those before.
    Items with equal scores are in order of number.

    Args:
        given: Items that the list goes with; may be empty.
        history: The user's history; may be empty.
        repeats: Whether items of the history may be shown again.
        allowed: (items,) bool.
        first: Items in the first block of each kind.
        debias: 0..1, see `discount_popularity`; None uses the model's value for this kind of list.
    """
    discount = discount_of(model, given, history, repeats=repeats, debias=debias)
    if len(given.items) == 1:
        return ItemRanking(ITEMS, _blocks_of_item(model, given, allowed, first, discount))
    if len(given.items):
        return ItemRanking(ITEMS, _blocks(model, model.similar, given, allowed, first, discount))
    if len(history.items):
        generator: Generator = model.blend(repeats=repeats)
        if (ranker := model.ranker(repeats=repeats)) is not None:
            generator = ranker.within(allowed)
        return ItemRanking(HISTORY, _blocks(model, generator, history, allowed, first, discount))
    popular = PopularityGenerator(model.popularity)
    return ItemRanking(POPULAR, _blocks(model, popular, history, allowed, first))


def rank_non_personalized(
    model: BehaviourModel,
    item_scores: NDArray[np.float32],
    *,
    allowed: NDArray[np.bool_],
    first: int,
) -> Iterator[Block]:
    """Ranks all allowed items by scores that are the same for everyone, the rest by counts.

    Args:
        item_scores: (items,) float32 >= 0.
    """
    return _blocks(model, PopularityGenerator(item_scores), EMPTY_HISTORY, allowed, first)


def rank_positive(
    scores: NDArray[np.float32], *, allowed: NDArray[np.bool_], first: int
) -> Iterator[Block]:
    """Ranks only the allowed items whose score is above 0."""
    return _best_first(np.flatnonzero(allowed & (scores > 0)), scores, first)


def position_of(ranking: ItemRanking, number: int) -> int:
    """Returns the 1-based rank of an item, or 0 if it is not ranked. Consumes the ranking."""
    before = 0
    for numbers, _ in ranking.blocks:
        found = np.flatnonzero(numbers == number)
        if len(found):
            return before + int(found[0]) + 1
        before += len(numbers)
    return 0


def discount_of(
    model: BehaviourModel, given: History, history: History, *, repeats: bool, debias: float | None
) -> float:
    """Returns how much `rank_items` discounts popularity, 0..1; its arguments are the same."""
    if not (len(given.items) or len(history.items)):
        return 0.0
    if debias is not None:
        return debias
    return model.similar_debias if len(given.items) else model.debias(repeats=repeats)


def places_gained(before: ItemRanking, after: ItemRanking) -> dict[int, int]:
    """Returns how many places items moved up from one ranking to another; negative: down.

    Only the first blocks are compared, since discounts reorder no others. Consumes the rankings.
    """
    first = {number: place for place, number in enumerate(next(before.blocks)[0].tolist())}
    then = {number: place for place, number in enumerate(next(after.blocks)[0].tolist())}
    return {number: first[number] - place for number, place in then.items() if number in first}


def _blocks_of_item(
    model: BehaviourModel, given: History, allowed: NDArray[np.bool_], first: int, debias: float
) -> Iterator[Block]:
    """Yields the blocks of a single item as `_blocks` does, from precomputed lists if possible."""
    item = int(given.items[0])
    numbers, scores = model.similar.lists.of(item)
    listed = _discounted(model, numbers, scores, allowed, debias)
    best = np.float32(0)
    if model.tail_lists is not None:
        more, by_factors = model.tail_lists.of(item)
        # Shifted below the scores before, which are positive.
        best = by_factors.max(initial=best)
        tail = _discounted(model, more, by_factors - best, allowed, debias)
        numbers = np.append(numbers, more)
        listed = np.append(listed[0], tail[0]), np.append(listed[1], tail[1])
    yield listed
    left = allowed.copy()
    left[numbers] = False
    rest = np.flatnonzero(left)
    if len(rest):
        scores = FactorGenerator(model.factors).scores(given)
        yield from _best_first(rest, scores - max(best, scores[rest].max()), first)


def _blocks(
    model: BehaviourModel,
    generator: Generator,
    history: History,
    allowed: NDArray[np.bool_],
    first: int,
    debias: float = 0.0,
) -> Iterator[Block]:
    scores = generator.scores(history)
    scored = allowed & (scores > 0)
    # The order does not depend on the length of the list: always the same number is reordered.
    blocks = _best_first(np.flatnonzero(scored), scores, max(first, WINDOW) if debias else first)
    yield discount_popularity(*next(blocks), model.levels, debias)
    yield from blocks
    rest = np.flatnonzero(allowed & ~scored)
    if not len(rest):
        return
    if model.factors is not None and len(history.items):
        scores = FactorGenerator(model.factors).scores(history)
    else:
        scores = model.counts
    # Shifted below the scores before, which are positive.
    yield from _best_first(rest, scores - max(scores[rest].max(), 0), first)


def _discounted(
    model: BehaviourModel,
    numbers: NDArray[np.int32],
    scores: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    debias: float,
) -> Block:
    """Returns the allowed ones of some items, with their popularity discounted."""
    free = allowed[numbers]
    return discount_popularity(numbers[free], scores[free], model.levels, debias)


def _best_first(
    places: NDArray[np.int64], scores: NDArray[np.float32], first: int
) -> Iterator[Block]:
    """Yields the best few, then the others; ordering all at once takes ten times as long."""
    best, best_scores = top_k_with_ties(places, scores[places], first)
    order = np.argsort(-best_scores, kind="stable")[:first]
    head = best[order]
    yield head.astype(np.int32), best_scores[order]
    if len(places) > len(head):
        is_tail = np.ones(len(scores), np.bool_)
        is_tail[head] = False
        tail = places[is_tail[places]]
        tail = tail[np.argsort(-scores[tail], kind="stable")]
        yield tail.astype(np.int32), scores[tail]
