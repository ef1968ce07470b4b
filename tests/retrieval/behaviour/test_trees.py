"""Trees score as LightGBM does, and malformed models are rejected."""

from __future__ import annotations

from collections.abc import Callable

import lightgbm
import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.behaviour.trees import read_trees

# Left of 0.5 by x: -1; else by y at 2: 3 up to it, 5 above. The second tree is one leaf.
TEXT = """tree
version=v4
num_class=1
num_tree_per_iteration=1
feature_names=x y

Tree=0
num_leaves=3
split_feature=0 1
threshold=0.5 2
decision_type=2 2
left_child=-1 -2
right_child=1 -3
leaf_value=-1 3 5

Tree=1
num_leaves=1
leaf_value=0.25

end of trees
"""


def test_a_row_gets_the_sum_of_its_leaves() -> None:
    trees = read_trees(TEXT)
    x, y = [0.0, 0.5, 0.6, 0.6, 0.6, 0.4], [9, 9, 2, 2.5, -1, -1]
    assert trees.names == ("x", "y")
    found = trees.scores(np.array([x, y], np.float32))
    assert found.tolist() == [-0.75, -0.75, 3.25, 5.25, 3.25, -0.75]
    assert trees.scores(np.empty((2, 0), np.float32)).shape == (0,)


def grown(leaves: int, trees: int, seed: int) -> tuple[lightgbm.Booster, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that many rows lie on a threshold.
    values = rng.integers(-4, 5, (800, 6)).astype(np.float32) / 3
    wanted = values[:, 0] * values[:, 1] + values[:, 2] + rng.normal(size=800) > 0.5
    options = {
        "objective": "lambdarank",
        "num_leaves": leaves,
        "use_missing": False,
        "min_data_in_leaf": 5,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(values, wanted.astype(int), group=[20] * 40, params=options)
    return lightgbm.train(options, data, trees), values


@pytest.mark.parametrize(("leaves", "trees"), [(2, 1), (7, 20), (15, 40)])
def test_scores_are_those_of_lightgbm(leaves: int, trees: int) -> None:
    booster, values = grown(leaves, trees, leaves)
    ours = read_trees(booster.model_to_string())
    assert ours.scores(np.ascontiguousarray(values.T)) == pytest.approx(
        booster.predict(values), abs=1e-12
    )


def _swap(old: str, new: str) -> Callable[[str], str]:
    assert old in TEXT
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda text: "", "not a LightGBM model"),
        (lambda text: text[:-20], "0 trees|no end"),
        (lambda text: text.partition("Tree=0")[0], "0 trees"),
        (_swap("num_class=1", "num_class=3"), "one class"),
        (_swap("left_child=-1 -2", "left_child=-1 0"), "cycle"),
        (_swap("left_child=-1 -2", "left_child=-1 -1"), "reached twice"),
        (_swap("left_child=-1 -2", "left_child=-1"), "left_child has 1 entries; 2 are required"),
        (_swap("left_child=-1 -2", "left_child=7 -2"), "tree 0"),
        (_swap("split_feature=0 1", "split_feature=0 2"), "feature 2 of 2"),
        (_swap("split_feature=0 1", "split_feature=0 -1"), "feature"),
        (_swap("threshold=0.5 2", "threshold=0.5 nan"), "threshold"),
        (_swap("decision_type=2 2", "decision_type=2 1"), "categories"),
        (_swap("leaf_value=-1 3 5", "leaf_value=-1 3 inf"), "a leaf is not a finite number"),
        (_swap("num_leaves=3", "num_leaves=4"), "3 leaves"),
        (_swap("num_leaves=3", "num_leaves=3\nis_linear=1"), "linear models"),
        (_swap("leaf_value=-1 3 5", f"leaf_value={'1 ' * 17}"), "17 leaves"),
        (_swap("right_child=1 -3", "right=1 -3"), "right_child"),
    ],
)
def test_malformed_models_are_rejected(change: Callable[[str], str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read_trees(change(TEXT))


@given(st.integers(0, len(TEXT) - 1), st.text("-019.= \nTe", max_size=3))
def test_damaged_models_are_rejected_or_give_finite_scores(at: int, instead: str) -> None:
    try:
        trees = read_trees(TEXT[:at] + instead + TEXT[at + 1 :])
    except ValueError:
        return
    values = np.zeros((len(trees.names), 3), np.float32)
    assert np.isfinite(trees.scores(values)).all()
