"""Boosted trees, read from LightGBM's text and scored without it.

LightGBM trains; what serves needs no second runtime of threads beside that of FAISS, and reads
files that are input: what is no tree is refused here, where LightGBM's own reader trusts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Leaves of a tree are bits of 16; of so few leaves every tree is shallow.
MAX_LEAVES = 15
_MOST_NODES = MAX_LEAVES - 1
MAX_TREES = 1_000
_ALL = np.uint16(0xFFFF)
# Numbers are compared with a threshold, and nothing is missing: 2 says where missing ones would go.
_DECISIONS = {"0", "2"}
_TREE = re.compile(r"^Tree=\d+$", re.MULTILINE)
_END = "end of trees"
# The lowest bit of each number; 0 has none.
_LOWEST = np.zeros(1 << 16, np.uint8)
for _bit in reversed(range(16)):
    _LOWEST[1 << _bit :: 2 << _bit] = _bit


class Trees(NamedTuple):
    """Trees as arrays; t of them, each with up to 14 nodes and 15 leaves.

    A node takes away those leaves that a row cannot come to once it is above the threshold; the
    first leaf that all nodes leave is the row's (Lucchese et al., 2015, "QuickScorer"). Nodes that
    compare the same share a test: there are few bins, and many trees.

    names: Of features, in order. feature, threshold: (tests,) intp and float32: whether the feature
        is above. test: (14, t) intp, that of each node. gone: (14, t) uint16, bits of the leaves to
        its left. leaves: (t, 16) float64, what a row gets.
    """

    names: tuple[str, ...]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    test: NDArray[np.intp]
    gone: NDArray[np.uint16]
    leaves: NDArray[np.float64]

    def scores(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Adds up what the trees say: (n,) float64.

        Args:
            values: (features, n), a row for each feature, none of them NaN.
        """
        count = len(self.leaves)
        above = (values[self.feature] > self.threshold[:, None]).view(np.uint8)
        gone = np.zeros((count, values.shape[1]), np.uint16)
        for test, left in zip(self.test, self.gone, strict=True):
            gone |= above[test] * left[:, None]
        places = _LOWEST.take(gone ^ _ALL) + (np.arange(count) * 16)[:, None]
        total: NDArray[np.float64] = self.leaves.ravel().take(places).sum(axis=0)
        return total


class _Nodes(NamedTuple):
    """Trees while they are read: feature and threshold of each node, (14, t)."""

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    gone: NDArray[np.uint16]
    leaves: NDArray[np.float64]


def read_trees(text: str) -> Trees:
    """Reads a model as LightGBM writes it.

    Raises: ValueError: it is none, or one that is not served here: of several classes, with
        categories, with missing values, with more than 15 leaves a tree or 1,000 trees.
    """
    head, *blocks = _TREE.split(text)
    about = _fields(head)
    names = tuple(about.get("feature_names", "").split())
    if not names or about.get("num_class") != "1" or about.get("num_tree_per_iteration") != "1":
        raise ValueError("it is no LightGBM model of one class with named features")
    if not 1 <= len(blocks) <= MAX_TREES or _END not in blocks[-1]:
        raise ValueError(f"it has {len(blocks)} trees and an end, or not; 1 to {MAX_TREES} served")
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
        nodes.gone,
        nodes.leaves,
    )


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in lines if equals}


def _read_tree(trees: _Nodes, number: int, told: Mapping[str, str], features: int) -> None:
    values = [float(one) for one in told["leaf_value"].split()]
    nodes = len(values) - 1
    if not 0 <= nodes <= _MOST_NODES or told["num_leaves"] != str(len(values)):
        raise ValueError(f"{len(values)} leaves, 1 to {MAX_LEAVES} are served")
    if not np.isfinite(values).all():
        raise ValueError("a leaf is no number")
    if told.get("is_linear", "0") != "0":
        raise ValueError("its leaves are linear models")
    if not nodes:
        trees.leaves[number, 0] = values[0]
        return
    feature = _whole(told, "split_feature", nodes)
    left, right = _whole(told, "left_child", nodes), _whole(told, "right_child", nodes)
    threshold = np.array([float(one) for one in told["threshold"].split()])
    if threshold.shape != (nodes,) or not np.isfinite(threshold).all():
        raise ValueError("a threshold is missing or no number")
    if not set(told["decision_type"].split()) <= _DECISIONS:
        raise ValueError("it splits by categories or by what is missing")
    if not 0 <= min(feature) <= max(feature) < features:
        raise ValueError(f"it looks at feature {max(feature)} of {features}")
    order: list[int] = []
    gone = [0] * nodes

    def walk(child: int, depth: int) -> int:
        """Numbers leaves from left to right; gives the bits of those below."""
        if depth > nodes:
            raise ValueError("its nodes go in a circle")
        if child < 0:
            order.append(~child)
            return 1 << (len(order) - 1)
        gone[child] = walk(left[child], depth + 1)
        return gone[child] | walk(right[child], depth + 1)

    walk(0, 0)
    if sorted(order) != list(range(len(values))):
        raise ValueError("a leaf is reached twice or never")
    trees.feature[:nodes, number] = feature
    trees.threshold[:nodes, number] = _rounded_down(threshold)
    trees.gone[:nodes, number] = gone
    trees.leaves[number, : len(order)] = [values[one] for one in order]


def _whole(told: Mapping[str, str], name: str, count: int) -> list[int]:
    numbers = [int(one) for one in told[name].split()]
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} of {name}, {count} are needed")
    return numbers


def _rounded_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the largest float32 not above: what is float32 compares with it as with the value."""
    near = values.astype(np.float32)
    below: NDArray[np.float32] = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > values, below, near)
