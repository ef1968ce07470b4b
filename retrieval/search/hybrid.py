"""Hybrid hits: fuses the dense and lexical candidates of all shards into one ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Explanation, Hit
from retrieval.protocols.shard import LexicalColumns, ShardHits
from retrieval.search.fusion import fuse
from retrieval.search.merge import make_hit


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

    The result does not depend on how documents are distributed to shards: each shard returns its
    best candidates of each leg with both true scores, so the best of all are among them and are
    selected here again.

    Args:
        parts: Shard number and its candidates.
        k: Hits wanted.
        candidates: Best candidates of each leg to keep, over all shards.
        dense_weight, floor: See `fuse`.
        explain: Whether to explain each score.
    Returns: Shard number and hit, at most k, by (score descending, document id ascending, chunk
        ascending). A hit shows the chunk of the leg that adds more to its score.
    """
    parts = [(shard, hits) for shard, hits in parts if len(hits.ids)]
    if not parts:
        return []
    dense = np.concatenate([np.asarray(hits.scores, np.float32) for _, hits in parts])
    lexical = np.concatenate([np.asarray(_lexical(hits).scores, np.float32) for _, hits in parts])
    places = [(number, place) for number, (_, h) in enumerate(parts) for place in range(len(h.ids))]
    ids = _order([document_id for _, hits in parts for document_id in hits.ids])
    chunks = np.concatenate([np.asarray(hits.chunks, np.int64) for _, hits in parts])
    dense_ranks = _ranks(dense, ids, chunks)
    lexical_ranks = np.where(lexical > 0, _ranks(lexical, ids, chunks), len(ids) + candidates)
    selected = np.flatnonzero((dense_ranks < candidates) | (lexical_ranks < candidates))
    dense_part, lexical_part = fuse(
        dense[selected], lexical[selected], dense_weight=dense_weight, floor=floor
    )
    # In the precision of the reply: an order by more digits than a caller sees would look wrong.
    scores = (dense_part + lexical_part).astype(np.float32)
    ranked = []
    for at in np.lexsort((chunks[selected], ids[selected], -scores))[:k].tolist():
        row = int(selected[at])
        number, place = places[row]
        shard, hits = parts[number]
        hit = make_hit(hits, place)
        hit.score = float(scores[at])
        if lexical_part[at] > dense_part[at]:
            best = _lexical(hits)
            hit.chunk, hit.start, hit.end = best.chunks[place], best.starts[place], best.ends[place]
        if explain:
            hit.explanation = Explanation(
                dense_score=float(dense[row]),
                lexical_score=float(lexical[row]),
                shard=shard,
                dense_rank=_shown_rank(dense_ranks[row], candidates),
                lexical_rank=_shown_rank(lexical_ranks[row], candidates),
            )
        ranked.append((shard, hit))
    return ranked


def _order(ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns the position of each id in sorted order; numpy cannot sort strings of any length."""
    places = {document_id: place for place, document_id in enumerate(sorted(set(ids)))}
    return np.array([places[document_id] for document_id in ids], np.int64)


def _ranks(
    scores: NDArray[np.float32], ids: NDArray[np.int64], chunks: NDArray[np.int64]
) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), np.int64)
    ranks[np.lexsort((chunks, ids, -scores))] = np.arange(len(scores))
    return ranks


def _shown_rank(rank: int, candidates: int) -> int | None:
    return int(rank) + 1 if rank < candidates else None


def _lexical(hits: ShardHits) -> LexicalColumns:
    assert hits.lexical is not None, "a shard answered a hybrid search without its lexical leg"
    return hits.lexical
