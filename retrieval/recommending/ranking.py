"""The order in which items come into question for somebody, before any rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import History
from retrieval.behaviour.learned import Learned
from retrieval.behaviour.popularity import Popularity
from retrieval.live.ranking import cut

# What made the first part of an order.
ITEMS = "items"
HISTORY = "history"
POPULAR = "popular"


Block: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


class Ranking(NamedTuple):
    """Items by number, best first, with scores; worked out block by block as they are asked for.

    source: What made the first of them: ITEMS, HISTORY or POPULAR.
    """

    source: str
    blocks: Iterator[Block]


def rank(
    learned: Learned,
    given: History,
    history: History,
    *,
    repeats: bool,
    allowed: NDArray[np.bool_],
    first: int,
) -> Ranking:
    """Ranks all items that are allowed.

    Given items ask for what goes with them, else the history asks for what comes next. After what
    the generators speak for come the rest by the factors of the user: among them new items, placed
    by their content. For whom nothing is known, all stand by popularity. Scores of the rest are
    below those before; equal ones stand in the order of numbers.

    Args:
        given: Items to go with; empty: none.
        history: What the user had; empty: nothing is known.
        repeats: What the user had may be shown again.
        allowed: (items,) bool.
        first: Items in the first block of each kind.
    """
    if len(given.items):
        return Ranking(ITEMS, _blocks(learned, learned.similar, given, allowed, first))
    if len(history.items):
        blend = learned.blend(repeats=repeats)
        return Ranking(HISTORY, _blocks(learned, blend, history, allowed, first))
    popular = Popularity(learned.popularity)
    return Ranking(POPULAR, _blocks(learned, popular, history, allowed, first))


def place_of(ranking: Ranking, number: int) -> int:
    """Gives the place of an item from 1; 0: it is not in the ranking. Uses the ranking up."""
    before = 0
    for numbers, _ in ranking.blocks:
        found = np.flatnonzero(numbers == number)
        if len(found):
            return before + int(found[0]) + 1
        before += len(numbers)
    return 0


def _blocks(
    learned: Learned,
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
        scores = learned.popularity
    # Below all before, whose scores are positive.
    yield from _best_first(rest, scores - max(scores[rest].max(), 0), first)


def _best_first(
    places: NDArray[np.int64], scores: NDArray[np.float32], first: int
) -> Iterator[Block]:
    """Gives the first few, then all others; to order them all takes ten times as long."""
    best, of = cut(places, scores[places], first)
    order = np.argsort(-of, kind="stable")[:first]
    head = best[order]
    yield head.astype(np.int32), of[order]
    if len(places) > len(head):
        kept = np.ones(len(scores), np.bool_)
        kept[head] = False
        tail = places[kept[places]]
        tail = tail[np.argsort(-scores[tail], kind="stable")]
        yield tail.astype(np.int32), scores[tail]
