"""Fits logistic regressions, and computes cross-validated scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from generation.evidence.logistic import Floats, LogisticModel

# Inverse strength of the ridge penalty on standardised features. Source: cross-validation on
# SciFact train, where 0.03 to 0.3 do equally well.
STRENGTH = 0.1
_FOLDS = 5


def fit(
    rows: Floats, target: NDArray[np.bool_], names: Sequence[str], *, balanced: bool = False
) -> LogisticModel:
    """Fits a logistic regression.

    Args:
        rows: (n, f) features; NaN counts as the mean of its column.
        target: (n,) labels; both values must occur.
        names: Names of the f columns.
        balanced: Whether both labels have the same total weight, regardless of their counts.
    """
    rows = _filled(rows)
    scaler = StandardScaler().fit(rows)
    regression = LogisticRegression(
        C=STRENGTH, class_weight="balanced" if balanced else None, max_iter=1_000
    ).fit(scaler.transform(rows), target)
    return LogisticModel(
        names=tuple(names),
        weights=regression.coef_[0].astype(np.float64),
        means=scaler.mean_.astype(np.float64),
        scales=scaler.scale_.astype(np.float64),
        bias=float(regression.intercept_[0]),
    )


def cross_validated(
    rows: Floats,
    target: NDArray[np.bool_],
    groups: NDArray[np.int64],
    names: Sequence[str],
    *,
    balanced: bool = False,
) -> Floats:
    """Returns the logit of each row, (n,), from a model trained without the row's group.

    Args:
        rows, target, names, balanced: See `fit`.
        groups: (n,) group of each row; at least 2. A group is never split between training and
            test.
    """
    logits = np.empty(len(rows))
    folds = GroupKFold(min(_FOLDS, len(set(groups.tolist()))), shuffle=True, random_state=0)
    for learned, held_out in folds.split(rows, target, groups):
        if len(set(target[learned].tolist())) < 2:
            # All rows of one label are held out, so nothing can be learned.
            logits[held_out] = 0.0
            continue
        model = fit(rows[learned], target[learned], names, balanced=balanced)
        logits[held_out] = model.score(rows[held_out], list(names))
    return logits


def group_questions(keys: Sequence[frozenset[str]]) -> NDArray[np.int64]:
    """Returns the group of each question, (n,); shared documents link questions."""
    parents = list(range(len(keys)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    first: dict[str, int] = {}
    for at, held in enumerate(keys):
        for key in held:
            parents[root(at)] = root(first.setdefault(key, at))
    return np.array([root(at) for at in range(len(keys))], np.int64)


def feature_matrix(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    """Returns the named features as (n, f)."""
    rows = [[one[name] for name in names] for one in found]
    return np.array(rows, np.float64).reshape(len(found), len(names))


def _filled(rows: Floats) -> Floats:
    known = np.isfinite(rows)
    means = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, rows, means)
