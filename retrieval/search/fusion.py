"""Fusion of dense and lexical scores: a convex combination over the best candidates of each leg.

Source: the comparison on SciFact in docs/adr/0009-fusion.md; Bruch et al. 2023, "An Analysis of
Fusion Functions for Hybrid Retrieval", for the convex combination with a theoretical minimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotMismatch
from nearline.v1 import snapshot_pb2

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
