"""Two legs become one score: a convex combination over the best candidates of each.

Source: the comparison on SciFact in docs/adr/0009-fusion.md; Bruch et al. 2023, "An Analysis of
Fusion Functions for Hybrid Retrieval", for the convex combination with a theoretical minimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotMismatch
from nearline.v1 import snapshot_pb2

# Name of the normalisation below; a weight tuned for another one means nothing here.
NORMALISATION = "cosine-floor+bm25-max"
# Candidates per leg, over all shards; more where more hits are asked for.
CANDIDATES = 100
# Weight of the dense leg where nobody tuned it: tuned on SciFact train, see
# docs/adr/0008-lexical-unit.md.
DEFAULT_DENSE_WEIGHT = 0.65


def fuse(
    dense: NDArray[np.float32],
    lexical: NDArray[np.float32],
    *,
    dense_weight: float,
    floor: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns what each leg adds to the score of each candidate.

    Args:
        dense: (n,) true scores of the dense leg.
        lexical: (n,) true BM25 scores, >= 0.
        dense_weight: 0..1.
        floor: Score that counts as nothing in the dense leg (the collection's typical worst one).
            The worst candidate where that is lower: a query unlike all of a uniform collection
            may have every score below the typical worst one, and must keep their order.
    Returns: (n,) dense and (n,) lexical parts, 0..w and 0..1 - w; the score is their sum. The best
        candidate of a leg has that leg's whole weight: w (s - floor) / (max - floor), and
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
    """How a snapshot wants its legs fused; see Fusion in snapshot.proto."""

    dense_weight: float = DEFAULT_DENSE_WEIGHT
    floor: float = 0.0
    candidates: int = CANDIDATES

    @classmethod
    def of(cls, manifest: snapshot_pb2.Manifest) -> FusionParams:
        """Reads it from a manifest.

        Raises: SnapshotMismatch: its weight belongs to a normalisation that is not known here.
        """
        if not manifest.HasField("fusion"):
            return cls()
        fusion = manifest.fusion
        if fusion.normalisation != NORMALISATION:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} fuses by {fusion.normalisation!r}, this version "
                f"knows {NORMALISATION!r}; rebuild the snapshot"
            )
        return cls(fusion.dense_weight, fusion.dense_constant, fusion.candidates)
