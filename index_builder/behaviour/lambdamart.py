"""LambdaMART: trees that put what is wanted before what is not, list by list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.trees import MAX_LEAVES

# Text of a model: its head, all trees, and what is written after them.
_TREES = re.compile(r"(?=^Tree=0$)|(?=^end of trees$)", re.MULTILINE)
_TREE = re.compile(r"^Tree=\d+\n", re.MULTILINE)


class LambdaMartOptions(NamedTuple):
    """How trees are grown; see LightGBM's parameters.

    runs: Models that are added up, each with a seed of its own: on validation of the shared shop
        data one was worth 0.3297 of NDCG@20 (0.3306 with another seed), two 0.3316, four 0.3321.
    trees: Of each.
    """

    runs: int = 2
    trees: int = 150
    learning_rate: float = 0.1
    leaves: int = MAX_LEAVES
    bins: int = 63
    least_in_leaf: int = 50
    features: float = 0.7
    l2: float = 10.0

    def told(self) -> str:
        """Returns it for people."""
        return " ".join(f"{name}={value:g}" for name, value in self._asdict().items())


def unavailable_reason() -> str:
    """Says why no trees can be grown on this machine; empty: they can.

    LightGBM needs a library of the system, libgomp, which small images lack.
    """
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError) as error:
        return f"lightgbm cannot be loaded ({error}); install it, or its libgomp (package libgomp1)"
    return ""


def train_trees(
    values: NDArray[np.float32],
    labels: NDArray[np.bool_],
    sizes: Sequence[int],
    names: Sequence[str],
    boosting: LambdaMartOptions,
    seed: int,
) -> str:
    """Returns LightGBM's text of all runs in one model; the same for the same arguments.

    Args:
        values: (n, features), lists one after another. labels: (n,) what was wanted.
        sizes: Of the lists.
        names: Of the features.
    """
    # Imported late; see `unavailable_reason`.
    import lightgbm

    texts = []
    for run in range(boosting.runs):
        options = _options(boosting, seed + run)
        data = lightgbm.Dataset(
            values, labels.astype(np.int8), group=sizes, feature_name=list(names), params=options
        )
        texts.append(lightgbm.train(options, data, boosting.trees).model_to_string())
    return merge_models(texts)


def _options(boosting: LambdaMartOptions, seed: int) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "num_leaves": boosting.leaves,
        "learning_rate": boosting.learning_rate,
        "min_data_in_leaf": boosting.least_in_leaf,
        "feature_fraction": boosting.features,
        "lambda_l2": boosting.l2,
        "max_bin": boosting.bins,
        "seed": seed,
        # On a machine that others use, a second thread waits for the first.
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "use_missing": False,
        "verbosity": -1,
    }


def merge_models(texts: Sequence[str]) -> str:
    """Joins models of the same features: one with the trees of all, which LightGBM reads, too."""
    parts = [_TREES.split(text) for text in texts]
    # Sizes in bytes, that would no longer be right; a reader can do without.
    head = re.sub(r"^tree_sizes=.*\n", "", parts[0][0], flags=re.MULTILINE)
    trees = [tree for _, trees, _ in parts for tree in _TREE.split(trees)[1:]]
    numbered = [f"Tree={number}\n{tree}" for number, tree in enumerate(trees)]
    return "".join([head, *numbered, parts[0][2]])
