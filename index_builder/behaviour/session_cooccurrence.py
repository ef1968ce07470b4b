"""Items that occur near each other in the sequence of a user's interactions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists_sparse
from index_builder.behaviour.user_item_matrix import blocks_within, item_counts
from index_builder.interactions.records import Interactions
from retrieval.behaviour.item_lists import ItemLists

# Interactions whose pairs are in memory at once: about 200 MB with 60 pairs each.
_BLOCK_EVENTS = 1 << 16


class SessionOptions(NamedTuple):
    """How pairs are weighted.

    window: Maximum distance of a pair, in interactions of one user.
    decay: A pair at distance d weighs exp(-(d - 1) / decay).
    beta, shrink: The sum of a pair (a, b) is divided by a^(1 - beta) b^beta + shrink, where a and b
        are the numbers of interactions with either item; a larger beta penalises popular items
        more.
    directed: Whether an item's list contains only items that occur after it.
    """

    window: int = 30
    decay: float = 15.0
    beta: float = 0.45
    shrink: float = 10.0
    directed: bool = False


def session_lists(
    interactions: Interactions,
    options: SessionOptions = SessionOptions(),  # noqa: B008  tuples are immutable
    length: int = LIST_LENGTH,
) -> ItemLists:
    """Returns the lists; see `SessionOptions`.

    Pairs are counted block by block of items, and only lists are kept. Memory beyond these grows
    with interactions, not with pairs.
    """
    return top_n_lists_sparse(_pair_blocks(interactions.by_time(), options), length)


def mutual_information(interactions: Interactions, options: SessionOptions) -> Any:
    """Returns how much more often items are near each other than by chance: (items, items) CSR.

        max(0, log(w(a, b) sum(w) / (w(a) w(b)))),   w(a) = sum over b of w(a, b)
    This is positive pointwise mutual information (Levy and Goldberg, 2014), float32 and symmetric
    unless pairs are directed.

    Args:
        options: How the pairs w are weighted; beta and shrink are not used.
    """
    ordered = interactions.by_time()
    counts = np.maximum(item_counts(ordered), 1).astype(np.float64)
    plain = options._replace(beta=0.5, shrink=0.0)
    pairs = sp.vstack(list(_pair_blocks(ordered, plain))).tocoo()
    weight = pairs.data * np.sqrt(counts[pairs.row] * counts[pairs.col])
    of_item = np.bincount(pairs.row, weight, len(counts))
    information = np.log(weight * of_item.sum() / (of_item[pairs.row] * of_item[pairs.col]))
    positive = np.maximum(information, 0).astype(np.float32)
    return sp.csr_matrix((positive, (pairs.row, pairs.col)), pairs.shape)


def _pair_blocks(ordered: Interactions, options: SessionOptions) -> Iterator[Any]:
    """Returns the weighted pairs of all items, as blocks of CSR rows in order.

    Args:
        ordered: As `Interactions.by_time` returns them.
    """
    counts = item_counts(ordered)
    stops = np.cumsum(counts)
    # Of each item, the places of its interactions.
    places = np.argsort(ordered.item, kind="stable")
    divisor = np.maximum(counts, 1).astype(np.float64)
    for first, stop in blocks_within(counts, _BLOCK_EVENTS):
        pairs: Any = sp.csr_matrix((stop - first, len(counts)))
        start, end = stops[first] - counts[first], stops[stop - 1]
        # More than one block only if a single item has so many interactions.
        for at in range(start, end, _BLOCK_EVENTS):
            some = places[at : min(at + _BLOCK_EVENTS, end)]
            pairs = pairs + _pairs(ordered, some, first, stop, options)
        rows = np.repeat(np.arange(first, stop), np.diff(pairs.indptr))
        scale = divisor[rows] ** (1 - options.beta) * divisor[pairs.indices] ** options.beta
        pairs.data /= scale + options.shrink
        yield pairs


def _pairs(
    ordered: Interactions, places: NDArray[np.int64], first: int, stop: int, options: SessionOptions
) -> Any:
    """Returns the sums of the pairs of some interactions: (stop - first, items) CSR.

    Args:
        places: Of interactions with the items first:stop, in order of item.
    """
    items = len(ordered.items)
    apart = np.arange(1, options.window + 1)
    weight = np.exp(-(apart - 1) / options.decay)
    if not options.directed:
        apart, weight = np.concatenate((apart, -apart)), np.concatenate((weight, weight))
    other = places[:, None] + apart
    inside = (other >= 0) & (other < len(ordered.user))
    other[~inside] = 0
    own = ordered.item[places]
    inside &= ordered.user[other] == ordered.user[places][:, None]
    inside &= ordered.item[other] != own[:, None]
    of_events = np.count_nonzero(inside, axis=1)
    counts = np.bincount(own - first, of_events, stop - first).astype(np.int64)
    cells = (
        np.broadcast_to(weight, inside.shape)[inside],
        ordered.item[other[inside]],
        np.concatenate(([0], np.cumsum(counts))),
    )
    pairs = sp.csr_matrix(cells, shape=(stop - first, items))
    pairs.sum_duplicates()
    return pairs
