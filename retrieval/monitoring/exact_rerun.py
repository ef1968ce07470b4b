"""Does searches again, exactly, on the same snapshot, and as they were where that has to be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from retrieval.protocols.shard import ShardQueries
from retrieval.protocols.watermark import decode_watermark
from retrieval.search import executor
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext

RECALL_K = 10
# Searches of the index take turns with requests, which would wait behind a long batch.
_SLICE = 4
_TIMEOUT_S = 30.0
# Of all documents, that may change between two searches. A change is among the best of one
# search in as many as there are tens of documents, and costs it a tenth of its recall: the mean is
# off by no more than this.
_MAX_CHANGED_RATIO = 0.002


class RerunRequest(NamedTuple):
    """A search.

    vectors: Its one, (1, d) float32. excluded: Documents that it must not find. found: The hits of
    the index, best first; None: they have to be looked for again. watermark: How far live changes
    are in these.
    """

    vectors: NDArray[np.float32]
    excluded: frozenset[str]
    found: Sequence[c.Hit] | None = None
    watermark: bytes = b""


class RerunResult(NamedTuple):
    """What came of searches.

    pairs: Of each that can be compared, the exact hits, explained, and those of the index.
    left_out: How many others there are, by reason: partial, changed.
    """

    pairs: Sequence[tuple[Sequence[c.Hit], Sequence[c.Hit]]]
    left_out: Mapping[str, int]


async def rerun_exactly(
    served: ServedCollection, sampled: Sequence[RerunRequest], options: c.SearchOptions
) -> RerunResult:
    """Does searches with the same options again.

    Args:
        served: Has an index that may miss some of what is best.
        sampled: At least one.
        options: As they were batch.
    Raises: NearlineError: as of any search.
    """
    exact, then = await _search(served, sampled, _exactly(options))
    if then.failures:
        return RerunResult((), {"partial": len(sampled)})
    pairs: list[tuple[Sequence[c.Hit], Sequence[c.Hit]]] = []
    left: list[int] = []
    for number, one in enumerate(sampled):
        if one.found is not None and _nearly_equal(one.watermark, then.watermark, served):
            pairs.append((exact[number], one.found))
        else:
            left.append(number)
    left_out: Counter[str] = Counter()
    for at in range(0, len(left), _SLICE):
        numbers = left[at : at + _SLICE]
        found, now = await _search(served, [sampled[number] for number in numbers], options)
        if now.failures:
            left_out["partial"] += len(left) - at
            break
        if _nearly_equal(now.watermark, then.watermark, served):
            pairs += zip([exact[number] for number in numbers], found, strict=True)
        else:
            left_out["changed"] += len(numbers)
    return RerunResult(pairs, left_out)


async def _search(
    served: ServedCollection, sampled: Sequence[RerunRequest], options: c.SearchOptions
) -> tuple[list[list[c.Hit]], RequestContext]:
    excluded = {place: one.excluded for place, one in enumerate(sampled) if one.excluded}
    vectors = np.concatenate([one.vectors for one in sampled])
    batch = QueryBatch(c.SearchMode.DENSE, range(len(sampled)), ShardQueries(vectors), excluded)
    context = RequestContext(asyncio.get_running_loop().time() + _TIMEOUT_S)
    found = await executor.search(served, batch, options, context)
    return found.lists, context


def _nearly_equal(mark: bytes, other: bytes, served: ServedCollection) -> bool:
    """Returns whether next to no live changes lie between two answers."""
    if mark == other:
        return True
    first, second = decode_watermark(mark), decode_watermark(other)
    if first is None or second is None:
        return False
    changes = first.changes_from(second)
    return changes is not None and changes <= _MAX_CHANGED_RATIO * served.documents


def _exactly(options: c.SearchOptions) -> c.SearchOptions:
    return c.SearchOptions(
        k=RECALL_K, level=options.level, filter=options.filter, explain=True, exact=True
    )
