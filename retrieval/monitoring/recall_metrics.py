"""What an index found beside what is best: recall, of all and by shard. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from nearline import contract as c

# Relative; of equal scores at the edge, any is as good as another.
_TIE = 1e-5


class RecallResult(NamedTuple):
    """recall: Share of the best that was found, 0..1. by_shard: The same of those in each shard."""

    recall: float
    by_shard: Mapping[int, float]


def compute_recall(
    best: Sequence[c.Hit], found: Sequence[c.Hit], *, chunks: bool = False
) -> RecallResult:
    """Compares what was found with what is best.

    A hit that scores like the last of the best is as good as that, within 1e-5 relative: an exact
    search names any of those that are tied there.

    Args:
        best: Hits of an exact search, best first, explained; at least one.
        found: Hits of a search of the index, as many places.
        chunks: A hit is a chunk, else a document.
    """
    names = {_name(hit, chunks=chunks) for hit in found}
    edge = best[-1].score
    slack = _TIE * max(1.0, abs(edge))
    exact = {_name(hit, chunks=chunks) for hit in best}
    # Each of these stands for one of the best that is tied at the edge and was not named.
    spare = sum(
        hit.score >= edge - slack for hit in found if _name(hit, chunks=chunks) not in exact
    )
    seen: dict[int, int] = {}
    good: dict[int, int] = {}
    for hit in best:
        assert hit.explanation is not None
        shard = hit.explanation.shard
        is_found = _name(hit, chunks=chunks) in names
        if not is_found and spare and hit.score <= edge + slack:
            spare -= 1
            is_found = True
        seen[shard] = seen.get(shard, 0) + 1
        good[shard] = good.get(shard, 0) + is_found
    return RecallResult(
        sum(good.values()) / len(best), {shard: good[shard] / seen[shard] for shard in seen}
    )


def _name(hit: c.Hit, *, chunks: bool) -> Hashable:
    return (hit.id, hit.chunk) if chunks else hit.id
