"""Fusion of dense and lexical scores: a convex combination over the best candidates of each leg.

Source: the comparison on SciFact in docs/adr/0009-fusion.md; Bruch et al. 2023, "An Analysis of
Fusion Functions for Hybrid Retrieval", for the convex combination with a theoretical minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Boost, Explanation, Hit
from nearline.errors import SnapshotMismatch
from nearline.v1 import snapshot_pb2
from retrieval.protocols.shard import TITLE_SCORE, LexicalColumns, ShardHits
from retrieval.search.boosts import boosted_scores, values_of
from retrieval.search.merge import make_hit

# Name of the normalisation below; weights tuned for another normalisation do not apply.
NORMALISATION = "cosine-floor+bm25-max"
# Candidates per leg, over all shards; more if more hits are requested.
CANDIDATES = 100
# Default weight of the dense leg: tuned on SciFact train, see docs/adr/0008-lexical-unit.md.
DEFAULT_DENSE_WEIGHT = 0.65


def fuse(
    dense: NDArray[np.float32],
    lexical: NDArray[np.float32],
    *,
    dense_weight: float,
    floor: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the contribution of each leg to the score of each candidate.

    Args:
        dense: (n,) true scores of the dense leg.
        lexical: (n,) true BM25 scores, >= 0.
        dense_weight: 0..1.
        floor: Dense score that contributes nothing (the collection's typical worst score). If the
            worst candidate scores lower, its score is used: for a query unlike everything in a
            uniform collection, every score may lie below the floor, and their order must remain.
    Returns: (n,) dense and (n,) lexical parts, 0..w and 0..1 - w; the score is their sum. The best
        candidate of a leg gets the full weight of that leg: w (s - floor) / (max - floor), and
        (1 - w) b / max.
    """
    if len(dense) == 0:
        return np.empty(0), np.empty(0)
    floor = min(floor, float(dense.min()))
    span = float(dense.max()) - floor
    top = float(lexical.max())
    dense_part = (dense.astype(np.float64) - floor) * (dense_weight / span if span > 0 else 0.0)
    lexical_part = lexical.astype(np.float64) * ((1 - dense_weight) / top if top > 0 else 0.0)
    return dense_part, lexical_part


@dataclass(frozen=True, slots=True)
class FusionParams:
    """Fusion parameters of a snapshot; see Fusion in snapshot.proto."""

    dense_weight: float = DEFAULT_DENSE_WEIGHT
    floor: float = 0.0
    candidates: int = CANDIDATES

    @classmethod
    def of(cls, manifest: snapshot_pb2.Manifest) -> FusionParams:
        """Returns the parameters in a manifest.

        Raises: SnapshotMismatch: the weight belongs to an unknown normalisation.
        """
        if not manifest.HasField("fusion"):
            return cls()
        fusion = manifest.fusion
        if fusion.normalisation != NORMALISATION:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} uses fusion {fusion.normalisation!r}, but this "
                f"version supports {NORMALISATION!r}; rebuild the snapshot"
            )
        return cls(fusion.dense_weight, fusion.dense_constant, fusion.candidates)


def fuse_hits(
    parts: Sequence[tuple[int, ShardHits]],
    k: int,
    *,
    candidates: int,
    dense_weight: float,
    floor: float,
    explain: bool = False,
    boosts: Sequence[Boost] = (),
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
        boosts: Change the scores; see `boosted_scores`.
    Returns: Shard number and hit, at most k, by (score descending, document id ascending, chunk
        ascending). Without boosts, the score is the sum of both parts, 0..1, and of `TITLE_SCORE`
        for each level of the title, so that no leg outranks a title that the query names. A hit
        shows the chunk of the leg that adds more to its score.
    """
    parts = [(shard, hits) for shard, hits in parts if len(hits.ids)]
    if not parts:
        return []
    dense = np.concatenate([np.asarray(hits.scores, np.float32) for _, hits in parts])
    lexical = np.concatenate([np.asarray(_lexical(hits).scores, np.float32) for _, hits in parts])
    titles = np.concatenate([np.asarray(_lexical(hits).titles, np.float32) for _, hits in parts])
    # All parts parse the query alike.
    level_score = np.float32(_lexical(parts[0][1]).title_score)
    places = [(number, place) for number, (_, h) in enumerate(parts) for place in range(len(h.ids))]
    ids = _order([document_id for _, hits in parts for document_id in hits.ids])
    chunks = np.concatenate([np.asarray(hits.chunks, np.int64) for _, hits in parts])
    dense_ranks = _ranks(dense, ids, chunks)
    # By the scores by which the shards chose.
    word_ranks = _ranks(lexical + titles * level_score, ids, chunks)
    # A title may match by a compound that does not count for the score.
    found = (lexical > 0) | (titles > 0)
    lexical_ranks = np.where(found, word_ranks, len(ids) + candidates)
    selected = np.flatnonzero((dense_ranks < candidates) | (lexical_ranks < candidates))
    dense_part, lexical_part = fuse(
        dense[selected], lexical[selected], dense_weight=dense_weight, floor=floor
    )
    # In the precision of the reply: an order by more digits than a caller sees would look wrong.
    scores = (dense_part + lexical_part + TITLE_SCORE * titles[selected]).astype(np.float32)
    values = np.empty((len(selected), 0))
    if boosts:
        values = values_of([hits for _, hits in parts], boosts)[selected]
        named = TITLE_SCORE * titles[selected].astype(np.float64)
        scores = boosted_scores(dense_part + lexical_part, named, values, boosts)
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
                title_level=float(titles[row]),
                boosts=tuple(values[at].tolist()),
            )
        ranked.append((shard, hit))
    return ranked


def _order(ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns the position of each id in sorted order; numpy cannot sort strings of any length."""
    places = {document_id: place for place, document_id in enumerate(sorted(set(ids)))}
    return np.array([places[document_id] for document_id in ids], np.int64)


def _ranks(
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    chunks: NDArray[np.int64],
) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), np.int64)
    ranks[np.lexsort((chunks, ids, -scores))] = np.arange(len(scores))
    return ranks


def _shown_rank(rank: int, candidates: int) -> int | None:
    return int(rank) + 1 if rank < candidates else None


def _lexical(hits: ShardHits) -> LexicalColumns:
    assert hits.lexical is not None, "a shard answered a hybrid search without its lexical leg"
    return hits.lexical
