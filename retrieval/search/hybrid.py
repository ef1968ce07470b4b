"""Hybrid hits: the candidates that all shards found, cut to each leg's best, fused and ordered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Explanation, Hit
from retrieval.protocols.shard import LexicalColumns, ShardHits
from retrieval.search.fusion import fuse


def fuse_hits(
    parts: Sequence[tuple[int, ShardHits]],
    k: int,
    *,
    candidates: int,
    dense_weight: float,
    floor: float,
    explain: bool = False,
) -> list[tuple[int, Hit]]:
    """Fuses the candidates of one query.

    The result does not depend on how documents are dealt to shards: each shard gives its best of
    each leg with both true scores, so the best of all are among them, and are chosen here again.

    Args:
        parts: Shard number and its candidates.
        k: Hits wanted.
        candidates: Best of each leg to keep, over all shards.
        dense_weight, floor: See `fuse`.
        explain: Say how each score came about.
    Returns: Shard number and hit, at most k, by (score descending, document id ascending, chunk
        ascending). A hit shows the chunk of the leg that adds more to its score.
    """
    parts = [(shard, hits) for shard, hits in parts if len(hits.ids)]
    if not parts:
        return []
    dense = np.concatenate([np.asarray(hits.scores, np.float32) for _, hits in parts])
    lexical = np.concatenate([np.asarray(_words(hits).scores, np.float32) for _, hits in parts])
    places = [(number, place) for number, (_, h) in enumerate(parts) for place in range(len(h.ids))]
    ids = _order([document_id for _, hits in parts for document_id in hits.ids])
    chunks = np.concatenate([np.asarray(hits.chunks, np.int64) for _, hits in parts])
    dense_ranks = _ranks(dense, ids, chunks)
    lexical_ranks = np.where(lexical > 0, _ranks(lexical, ids, chunks), len(ids) + candidates)
    kept = np.flatnonzero((dense_ranks < candidates) | (lexical_ranks < candidates))
    dense_part, lexical_part = fuse(
        dense[kept], lexical[kept], dense_weight=dense_weight, floor=floor
    )
    # As they travel: an order by more digits than a caller sees would look wrong to it.
    scores = (dense_part + lexical_part).astype(np.float32)
    hits = []
    for at in np.lexsort((chunks[kept], ids[kept], -scores))[:k].tolist():
        one = int(kept[at])
        number, place = places[one]
        shard, found = parts[number]
        by_words = lexical_part[at] > dense_part[at]
        hit = _hit(found, place, float(scores[at]), by_words=bool(by_words))
        if explain:
            hit.explanation = Explanation(
                dense_score=float(dense[one]),
                lexical_score=float(lexical[one]),
                shard=shard,
                dense_rank=_place(dense_ranks[one], candidates),
                lexical_rank=_place(lexical_ranks[one], candidates),
            )
        hits.append((shard, hit))
    return hits


def _order(ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns each id's place among all of them; numpy cannot sort strings of any length."""
    places = {one: place for place, one in enumerate(sorted(set(ids)))}
    return np.array([places[one] for one in ids], np.int64)


def _ranks(
    scores: NDArray[np.float32], ids: NDArray[np.int64], chunks: NDArray[np.int64]
) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), np.int64)
    ranks[np.lexsort((chunks, ids, -scores))] = np.arange(len(scores))
    return ranks


def _place(rank: int, candidates: int) -> int | None:
    return int(rank) + 1 if rank < candidates else None


def _hit(hits: ShardHits, place: int, score: float, *, by_words: bool) -> Hit:
    chunks, starts, ends = hits.chunks, hits.starts, hits.ends
    if by_words:
        words = _words(hits)
        chunks, starts, ends = words.chunks, words.starts, words.ends
    return Hit(
        id=hits.ids[place],
        score=score,
        chunk=chunks[place],
        start=starts[place],
        end=ends[place],
        group=hits.groups[place] if hits.groups else None,
    )


def _words(hits: ShardHits) -> LexicalColumns:
    assert hits.lexical is not None, "a shard answered a hybrid search without its lexical leg"
    return hits.lexical
