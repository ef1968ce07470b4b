"""Reruns sampled searches exactly on the same snapshot, to compare their results."""

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
# Searches per batch of the index; requests would wait behind a longer batch.
_SLICE = 4
_TIMEOUT_S = 30.0
# Share of documents that may change between two searches. Each changed document is among the 10
# best of one search in (documents / 10) and costs it a tenth of its recall, so the error of the
# mean is at most this ratio.
_MAX_CHANGED_RATIO = 0.002


class RerunRequest(NamedTuple):
    """A sampled search.

    vectors: Query vector, (1, d) float32.
    excluded: Documents that the search must not return.
    found: Hits of the index, best first; None if the index must be searched again.
    watermark: Live changes contained in `found`.
    """

    vectors: NDArray[np.float32]
    excluded: frozenset[str]
    found: Sequence[c.Hit] | None = None
    watermark: bytes = b""


class RerunResult(NamedTuple):
    """Results of rerun searches.

    pairs: Exact hits, explained, and hits of the index, for each comparable search.
    left_out: Number of other searches, by reason: partial, changed.
    """

    pairs: Sequence[tuple[Sequence[c.Hit], Sequence[c.Hit]]]
    left_out: Mapping[str, int]


async def rerun_exactly(
    served: ServedCollection, sampled: Sequence[RerunRequest], options: c.SearchOptions
) -> RerunResult:
    """Reruns searches that share their options.

    Args:
        served: Collection with an approximate index.
        sampled: Searches, at least one.
        options: Options of the searches.
    Raises: NearlineError: Any error of a search.
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
    """Returns whether almost no live changes lie between two answers."""
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
