"""Made-up vectors that cluster, as those of texts do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClusterShape(NamedTuple):
    """How vectors cluster.

    centres: Number of clusters. noise: Standard deviation within a cluster, over that between
        clusters. decay: The n-th dimension is scaled by n^-decay; 0 makes all equally important.
    """

    centres: int = 300
    noise: float = 0.8
    decay: float = 0.0


PLAIN_SHAPE = ClusterShape()
# Measured on 50,000 x 384, HNSW32: recall@10 is 0.960, 0.977, 0.985 and 0.993 at ef 16, 24, 32 and
# 64. Sentence embeddings have 0.979 at 24 and 0.995 at 64 (docs/performance.md, "Quantised index").
TEXT_SHAPE = ClusterShape(centres=500, noise=0.9, decay=0.65)


class VectorClusters:
    """A distribution of unit vectors around centres."""

    def __init__(
        self, rng: np.random.Generator, dim: int, shape: ClusterShape = PLAIN_SHAPE
    ) -> None:
        """Draws the centres, of this many dimensions."""
        self._centres = rng.normal(size=(shape.centres, dim))
        self._noise = shape.noise
        self._scale = np.arange(1, dim + 1) ** -shape.decay

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draws vectors: (count, dim) float32 of unit length."""
        chosen = self._centres[rng.integers(0, len(self._centres), count)]
        drawn = (chosen + self._noise * rng.normal(size=chosen.shape)) * self._scale
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        vectors: NDArray[np.float32] = drawn.astype(np.float32)
        return vectors
