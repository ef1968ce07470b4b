"""The order in which items come into question for somebody, before any rule."""

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
from retrieval.index.best_rows import top_k_with_ties

# What made the first part of an order.
ITEMS = "items"
HISTORY = "history"
POPULAR = "popular"


Block: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


class ItemRanking(NamedTuple):
    """Items by number, best first, with scores; worked out block by block as they are asked for.

    source: What made the first of them: ITEMS, HISTORY or POPULAR.
    """

    source: str
    blocks: Iterator[Block]


def rank_items(
    learned: BehaviourModel,
    given: History,
    history: History,
    *,
    repeats: bool,
    allowed: NDArray[np.bool_],
    first: int,
) -> ItemRanking:
    """Ranks all items that are allowed, by whom they are for; see `origins` for other orders.

    Given items ask for what goes with them, else the history asks for what comes next; where the
    snapshot has a ranker, it orders the best of these. After what the generators speak for come the
    rest by the factors of the user: among them new items, placed by their content. For whom nothing
    is known, all stand by popularity. Scores of the rest are below those before; equal ones stand
    in the order of numbers.

    Args:
        given: Items to go with; empty: none.
        history: What the user had; empty: nothing is known.
        repeats: What the user had may be shown again.
        allowed: (items,) bool.
        first: Items in the first block of each kind.
    """
    if len(given.items) == 1:
        return ItemRanking(ITEMS, _beside(learned, given, allowed, first))
    if len(given.items):
        return ItemRanking(ITEMS, _blocks(learned, learned.similar, given, allowed, first))
    if len(history.items):
        generator: Generator = learned.blend(repeats=repeats)
        if (ranker := learned.ranker(repeats=repeats)) is not None:
            generator = ranker.within(allowed)
        return ItemRanking(HISTORY, _blocks(learned, generator, history, allowed, first))
    popular = PopularityGenerator(learned.popularity)
    return ItemRanking(POPULAR, _blocks(learned, popular, history, allowed, first))


def rank_non_personalized(
    learned: BehaviourModel,
    of_items: NDArray[np.float32],
    *,
    allowed: NDArray[np.bool_],
    first: int,
) -> Iterator[Block]:
    """Ranks all items that are allowed by what is the same for everybody, the rest by counts.

    Args:
        of_items: (items,) float32 >= 0.
    """
    return _blocks(learned, PopularityGenerator(of_items), EMPTY_HISTORY, allowed, first)


def rank_positive(
    scores: NDArray[np.float32], *, allowed: NDArray[np.bool_], first: int
) -> Iterator[Block]:
    """Ranks those items that are allowed and have a score above 0, and no others."""
    return _best_first(np.flatnonzero(allowed & (scores > 0)), scores, first)


def position_of(ranking: ItemRanking, number: int) -> int:
    """Returns the place of an item from 1; 0: it is not in the ranking. Uses the ranking up."""
    before = 0
    for numbers, _ in ranking.blocks:
        found = np.flatnonzero(numbers == number)
        if len(found):
            return before + int(found[0]) + 1
        before += len(numbers)
    return 0


def _beside(
    learned: BehaviourModel, given: History, allowed: NDArray[np.bool_], first: int
) -> Iterator[Block]:
    """Yields what goes with one item: as `_blocks` does, from lists as far as these go."""
    item = int(given.items[0])
    numbers, scores = learned.similar.lists.of(item)
    best = np.float32(0)
    if learned.beyond is not None:
        more, by_factors = learned.beyond.of(item)
        # Below all before, whose scores are positive.
        best = by_factors.max(initial=best)
        numbers, scores = np.append(numbers, more), np.append(scores, by_factors - best)
    free = allowed[numbers]
    yield numbers[free], scores[free]
    left = allowed.copy()
    left[numbers] = False
    rest = np.flatnonzero(left)
    if len(rest):
        scores = FactorGenerator(learned.factors).scores(given)
        yield from _best_first(rest, scores - max(best, scores[rest].max()), first)


def _blocks(
    learned: BehaviourModel,
    generator: Generator,
    history: History,
    allowed: NDArray[np.bool_],
    first: int,
) -> Iterator[Block]:
    scores = generator.scores(history)
    spoken_for = allowed & (scores > 0)
    yield from _best_first(np.flatnonzero(spoken_for), scores, first)
    rest = np.flatnonzero(allowed & ~spoken_for)
    if not len(rest):
        return
    if learned.factors is not None and len(history.items):
        scores = FactorGenerator(learned.factors).scores(history)
    else:
        scores = learned.counts
    # Below all before, whose scores are positive.
    yield from _best_first(rest, scores - max(scores[rest].max(), 0), first)


def _best_first(
    places: NDArray[np.int64], scores: NDArray[np.float32], first: int
) -> Iterator[Block]:
    """Yields the first few, then all others; to order them all takes ten times as long."""
    best, of = top_k_with_ties(places, scores[places], first)
    order = np.argsort(-of, kind="stable")[:first]
    head = best[order]
    yield head.astype(np.int32), of[order]
    if len(places) > len(head):
        kept = np.ones(len(scores), np.bool_)
        kept[head] = False
        tail = places[kept[places]]
        tail = tail[np.argsort(-scores[tail], kind="stable")]
        yield tail.astype(np.int32), scores[tail]
