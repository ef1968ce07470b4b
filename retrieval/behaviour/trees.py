"""Reads boosted trees in LightGBM's text format and scores them without LightGBM.

Serving with LightGBM would add a second thread pool to that of FAISS, and its reader trusts its
input. This one rejects malformed files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The leaves of a tree are bits of a 16-bit number.
MAX_LEAVES = 15
_MOST_NODES = MAX_LEAVES - 1
MAX_TREES = 1_000
_ALL = np.uint16(0xFFFF)
# Numeric splits without missing values; 2 adds a default direction for missing values.
_DECISIONS = {"0", "2"}
_TREE = re.compile(r"^Tree=\d+$", re.MULTILINE)
_END = "end of trees"
# The lowest set bit of each number; 0 for 0.
_LOWEST = np.zeros(1 << 16, np.uint8)
for _bit in reversed(range(16)):
    _LOWEST[1 << _bit :: 2 << _bit] = _bit


class Trees(NamedTuple):
    """The t trees of a model as arrays, each with up to 14 nodes and 15 leaves.

    A node excludes the leaves that a row cannot reach once the feature is above the threshold. A
    row ends in the first leaf that no node excludes (Lucchese et al., 2015, "QuickScorer"). Nodes
    with equal comparisons share a test, since there are few bins and many trees.

    names: Names of the features, in order. feature, threshold: (tests,) intp and float32; a test is
        whether the feature is above the threshold. test: (14, t) intp, the test of each node. left:
        (14, t) uint16, bits of the leaves to the left of each node. leaves: (t, 16) float64, values
        of the leaves.
    """

    names: tuple[str, ...]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    test: NDArray[np.intp]
    left: NDArray[np.uint16]
    leaves: NDArray[np.float64]

    def scores(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns the sum of all trees: (n,) float64.

        Args:
            values: (features, n), a row for each feature, without NaN.
        """
        count = len(self.leaves)
        above = (values[self.feature] > self.threshold[:, None]).view(np.uint8)
        excluded = np.zeros((count, values.shape[1]), np.uint16)
        for test, left in zip(self.test, self.left, strict=True):
            excluded |= above[test] * left[:, None]
        places = _LOWEST.take(excluded ^ _ALL) + (np.arange(count) * 16)[:, None]
        total: NDArray[np.float64] = self.leaves.ravel().take(places).sum(axis=0)
        return total


class _Nodes(NamedTuple):
    """The trees read so far, with the feature and the threshold of each node: (14, t)."""

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    left: NDArray[np.uint16]
    leaves: NDArray[np.float64]


def read_trees(text: str) -> Trees:
    """Reads a model in LightGBM's text format.

    Raises: ValueError: the text is malformed, or the model is not supported: several classes,
        categories, missing values, more than 15 leaves in a tree, or more than 1,000 trees.
    """
    head, *blocks = _TREE.split(text)
    about = _fields(head)
    names = tuple(about.get("feature_names", "").split())
    if not names or about.get("num_class") != "1" or about.get("num_tree_per_iteration") != "1":
        raise ValueError("it is not a LightGBM model of one class with named features")
    if not 1 <= len(blocks) <= MAX_TREES or _END not in blocks[-1]:
        raise ValueError(f"it has {len(blocks)} trees or no end; 1..{MAX_TREES} are supported")
    shape = (_MOST_NODES, len(blocks))
    nodes = _Nodes(
        np.zeros(shape, np.intp),
        np.full(shape, np.inf, np.float32),
        np.zeros(shape, np.uint16),
        np.zeros((len(blocks), 16)),
    )
    for number, block in enumerate(blocks):
        try:
            _read_tree(nodes, number, _fields(block.partition(_END)[0]), len(names))
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(f"tree {number}: {error}") from error
    pairs = np.stack([nodes.feature.ravel(), nodes.threshold.ravel()])
    tests, test = np.unique(pairs, axis=1, return_inverse=True)
    return Trees(
        names,
        tests[0].astype(np.intp),
        tests[1].astype(np.float32),
        test.reshape(shape).astype(np.intp),
        nodes.left,
        nodes.leaves,
    )


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in lines if equals}


def _read_tree(trees: _Nodes, number: int, fields: Mapping[str, str], features: int) -> None:
    values = [float(one) for one in fields["leaf_value"].split()]
    nodes = len(values) - 1
    if not 0 <= nodes <= _MOST_NODES or fields["num_leaves"] != str(len(values)):
        raise ValueError(f"it has {len(values)} leaves; 1..{MAX_LEAVES} are supported")
    if not np.isfinite(values).all():
        raise ValueError("a leaf is not a finite number")
    if fields.get("is_linear", "0") != "0":
        raise ValueError("its leaves are linear models")
    if not nodes:
        trees.leaves[number, 0] = values[0]
        return
    feature = _integers(fields, "split_feature", nodes)
    left, right = _integers(fields, "left_child", nodes), _integers(fields, "right_child", nodes)
    threshold = np.array([float(one) for one in fields["threshold"].split()])
    if threshold.shape != (nodes,) or not np.isfinite(threshold).all():
        raise ValueError("a threshold is missing or not a finite number")
    if not set(fields["decision_type"].split()) <= _DECISIONS:
        raise ValueError("it splits by categories or by missing values")
    if not 0 <= min(feature) <= max(feature) < features:
        raise ValueError(f"it reads feature {max(feature)} of {features}")
    order: list[int] = []
    left_leaves = [0] * nodes

    def walk(child: int, depth: int) -> int:
        """Numbers leaves from left to right; returns the bits of those below."""
        if depth > nodes:
            raise ValueError("its nodes form a cycle")
        if child < 0:
            order.append(~child)
            return 1 << (len(order) - 1)
        left_leaves[child] = walk(left[child], depth + 1)
        return left_leaves[child] | walk(right[child], depth + 1)

    walk(0, 0)
    if sorted(order) != list(range(len(values))):
        raise ValueError("a leaf is reached twice or not at all")
    trees.feature[:nodes, number] = feature
    trees.threshold[:nodes, number] = _rounded_down(threshold)
    trees.left[:nodes, number] = left_leaves
    trees.leaves[number, : len(order)] = [values[one] for one in order]


def _integers(fields: Mapping[str, str], name: str, count: int) -> list[int]:
    numbers = [int(one) for one in fields[name].split()]
    if len(numbers) != count:
        raise ValueError(f"{name} has {len(numbers)} entries; {count} are required")
    return numbers


def _rounded_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the largest float32 not above each value; any float32 compares equally with both."""
    nearest = values.astype(np.float32)
    below: NDArray[np.float32] = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest)
