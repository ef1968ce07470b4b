"""Does searches again: exactly, and as they were, on the same snapshot at about the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval import searching
from retrieval.asking import Asked
from retrieval.changes.watermark import decode
from retrieval.inquiry import Inquiry
from retrieval.served import ServedCollection
from retrieval.shard import Queries

PLACES = 10
# Searches of the index take turns with requests, which would wait behind a long batch.
_SLICE = 4
_PATIENCE_S = 30.0
# Of all documents, that may change between the two searches. A change is among the best of one
# search in as many as there are tens of documents, and costs it a tenth of its recall: the mean is
# off by no more than this.
_MOST_CHANGED = 0.002


class Sampled(NamedTuple):
    """A search: its vector, (1, d) float32, and documents that it must not find."""

    vectors: NDArray[np.float32]
    excluded: frozenset[str]


class Again(NamedTuple):
    """What came of searches.

    pairs: Of each that can be compared, the exact hits, and those of the index. left_out: How many
    others there are, by reason: partial, changed.
    """

    pairs: Sequence[tuple[Sequence[c.Hit], Sequence[c.Hit]]]
    left_out: Mapping[str, int]


async def search_again(
    served: ServedCollection, sampled: Sequence[Sampled], options: c.SearchOptions
) -> Again:
    """Does searches with the same options again.

    Args:
        served: Has an index that may miss some of what is best.
        sampled: At least one.
        options: As they were asked; explained.
    Raises: NearlineError: as of any search.
    """
    exact, then = await _search(served, sampled, _exactly(options))
    if then.failures:
        return Again((), {"partial": len(sampled)})
    pairs: list[tuple[Sequence[c.Hit], Sequence[c.Hit]]] = []
    left_out: Counter[str] = Counter()
    for at in range(0, len(sampled), _SLICE):
        some = sampled[at : at + _SLICE]
        found, now = await _search(served, some, options)
        if now.failures:
            left_out["partial"] += len(sampled) - at
            break
        if _about_the_same(then, now, served.documents):
            pairs += zip(exact[at : at + len(some)], found, strict=True)
        else:
            left_out["changed"] += len(some)
    return Again(pairs, left_out)


async def _search(
    served: ServedCollection, sampled: Sequence[Sampled], options: c.SearchOptions
) -> tuple[list[list[c.Hit]], Inquiry]:
    excluded = {place: one.excluded for place, one in enumerate(sampled) if one.excluded}
    vectors = np.concatenate([one.vectors for one in sampled])
    asked = Asked(c.SearchMode.DENSE, range(len(sampled)), Queries(vectors), excluded)
    inquiry = Inquiry(asyncio.get_running_loop().time() + _PATIENCE_S)
    found = await searching.search(served, asked, options, inquiry)
    return found.lists, inquiry


def _about_the_same(one: Inquiry, other: Inquiry, documents: int) -> bool:
    """Tells whether next to no live changes lie between two answers."""
    first, second = decode(one.watermark), decode(other.watermark)
    if first is None or second is None:
        return first is second
    changes = first.changes_from(second)
    return changes is not None and changes <= _MOST_CHANGED * documents


def _exactly(options: c.SearchOptions) -> c.SearchOptions:
    return c.SearchOptions(
        k=PLACES, level=options.level, filter=options.filter, explain=True, exact=True
    )
