"""LambdaMART: gradient-boosted trees that learn to rank relevant items first in each list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.trees import MAX_LEAVES

# The text of a model: its header, all trees, and a trailer.
_TREES = re.compile(r"(?=^Tree=0$)|(?=^end of trees$)", re.MULTILINE)
_TREE = re.compile(r"^Tree=\d+\n", re.MULTILINE)


class LambdaMartOptions(NamedTuple):
    """How trees are trained; see LightGBM's parameters.

    runs: Number of models, each with its own seed, whose scores are added. On validation of the
        shared shop data, one model reached an NDCG@20 of 0.3297 (0.3306 with a different seed), two
        models 0.3316, four models 0.3321.
    trees: Trees of each model. Lists take time for each: with 60 trees at twice the rate,
        validation is as good as with 150 (shop 0.3317 and 0.3317, films 0.1390 and 0.1376).
    """

    runs: int = 2
    trees: int = 60
    learning_rate: float = 0.2
    leaves: int = MAX_LEAVES
    bins: int = 63
    least_in_leaf: int = 50
    features: float = 0.7
    l2: float = 10.0

    def as_text(self) -> str:
        """Returns the options as text for people."""
        return " ".join(f"{name}={value:g}" for name, value in self._asdict().items())


def unavailable_reason() -> str:
    """Returns why this machine cannot train trees; empty if it can.

    LightGBM needs the system library libgomp, which small images lack.
    """
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError) as error:
        return (
            f"lightgbm cannot be loaded ({error}); run pip install 'nearline-server[training]', or "
            "install its libgomp (package libgomp1)"
        )
    return ""


def train_trees(
    values: NDArray[np.float32],
    labels: NDArray[np.bool_],
    sizes: Sequence[int],
    names: Sequence[str],
    options: LambdaMartOptions,
    seed: int,
) -> str:
    """Returns the LightGBM text of one model with the trees of all runs; deterministic.

    Args:
        values: (n, features), list after list.
        labels: (n,) whether an item was relevant.
        sizes: Length of each list.
        names: Names of the features.
    """
    # Imported late because it may be unavailable; see `unavailable_reason`.
    import lightgbm

    texts = []
    for run in range(options.runs):
        parameters = _options(options, seed + run)
        data = lightgbm.Dataset(
            values, labels.astype(np.int8), group=sizes, feature_name=list(names), params=parameters
        )
        texts.append(lightgbm.train(parameters, data, options.trees).model_to_string())
    return merge_models(texts)


def _options(options: LambdaMartOptions, seed: int) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "num_leaves": options.leaves,
        "learning_rate": options.learning_rate,
        "min_data_in_leaf": options.least_in_leaf,
        "feature_fraction": options.features,
        "lambda_l2": options.l2,
        "max_bin": options.bins,
        "seed": seed,
        # On a shared machine, a second thread waits for the first.
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "use_missing": False,
        "verbosity": -1,
    }


def merge_models(texts: Sequence[str]) -> str:
    """Returns one model, in LightGBM's text format, with the trees of several on equal features."""
    parts = [_TREES.split(text) for text in texts]
    # The sizes in bytes would now be wrong; readers do not need them.
    head = re.sub(r"^tree_sizes=.*\n", "", parts[0][0], flags=re.MULTILINE)
    trees = [tree for _, trees, _ in parts for tree in _TREE.split(trees)[1:]]
    numbered = [f"Tree={number}\n{tree}" for number, tree in enumerate(trees)]
    return "".join([head, *numbered, parts[0][2]])
