"""A logistic regression over named, standardised features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotMismatch

Floats: TypeAlias = NDArray[np.float64]
# Weight, mean and scale (> 0) by name of a feature.
Terms: TypeAlias = Mapping[str, tuple[float, float, float]]
_STEEPEST = 50.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LogisticModel:
    """names: Names of the features; weights, means and scales are (f,) float64 in their order."""

    names: tuple[str, ...]
    weights: Floats
    means: Floats
    scales: Floats
    bias: float

    def score(self, rows: Floats, columns: Sequence[str]) -> Floats:
        """Returns the logit of each row, (n,); NaN counts as the mean.

        Args:
            rows: (n, c) features.
            columns: Names of the c columns, including all features of the model.
        """
        wanted = rows[:, [columns.index(name) for name in self.names]]
        standard = np.nan_to_num((wanted - self.means) / self.scales, nan=0.0)
        return np.asarray(standard @ self.weights + self.bias, np.float64)

    def probability(self, found: Mapping[str, float]) -> float:
        """Returns the probability, 0..1, for one set of named features."""
        row = np.array([[found[name] for name in self.names]], np.float64)
        logit = float(self.score(row, self.names)[0])
        return 1 / (1 + math.exp(-max(-_STEEPEST, min(_STEEPEST, logit))))

    def terms(self) -> dict[str, tuple[float, float, float]]:
        """Returns weight, mean and scale by name."""
        parts = (self.weights.tolist(), self.means.tolist(), self.scales.tolist())
        return dict(zip(self.names, zip(*parts, strict=True), strict=True))

    @classmethod
    def of(cls, terms: Terms, bias: float, known: Iterable[str]) -> LogisticModel:
        """Creates a model from the result of `terms`.

        Args:
            terms: Weight, mean and scale by name.
            bias: The constant term.
            known: Names of all available features.
        Raises: SnapshotMismatch: the model uses an unknown feature, or a number is not valid.
        """
        unknown = sorted(set(terms) - set(known))
        if unknown:
            raise SnapshotMismatch(
                f"a model uses {', '.join(unknown)}, which this version does not compute; "
                "calibrate again with this version: nearline build --calibrate-on DIR"
            )
        numbers = np.array(list(terms.values()), np.float64).reshape(len(terms), 3)
        if not (np.isfinite(numbers).all() and (numbers[:, 2] > 0).all() and math.isfinite(bias)):
            raise SnapshotMismatch(
                "a model has a weight that is not a number, or a scale that is not positive; "
                "calibrate again: nearline build --calibrate-on DIR"
            )
        weights, means, scales = numbers.T
        return cls(names=tuple(terms), weights=weights, means=means, scales=scales, bias=bias)
