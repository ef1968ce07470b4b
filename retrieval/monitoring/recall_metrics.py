"""Recall of an approximate search, in total and by shard. Pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from nearline import contract as c

# Relative tolerance within which scores at the last place count as ties.
_TIE = 1e-5


class RecallResult(NamedTuple):
    """recall: Share of the best hits that were found, 0..1. by_shard: Recall of each shard."""

    recall: float
    by_shard: Mapping[int, float]


def compute_recall(
    best: Sequence[c.Hit], found: Sequence[c.Hit], *, chunks: bool = False
) -> RecallResult:
    """Compares hits of an approximate search with the exact ones.

    A hit whose score ties with the last exact hit, within 1e-5 relative, is as good as that hit: an
    exact search returns any of the tied ones.

    Args:
        best: Hits of an exact search, best first, explained; at least one.
        found: Hits of a search of the index, with the same k.
        chunks: Whether a hit is a chunk; otherwise it is a document.
    """
    names = {_name(hit, chunks=chunks) for hit in found}
    edge = best[-1].score
    slack = _TIE * max(1.0, abs(edge))
    exact = {_name(hit, chunks=chunks) for hit in best}
    # Each of these replaces a tied exact hit that was not found.
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
