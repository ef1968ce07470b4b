"""Data set of the peers: rows with attributes, held-out queries, and recall by brute force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.closed_loop import TIE
from benchmarks.workloads.retrieval_dataset import exact_edges
from nearline.errors import InvalidRequest

K = 10
CALLERS = 8
# Number of values of each attribute, which are equally frequent.
ATTRIBUTES = {"half": 2, "twentieth": 20, "hundredth": 100}
NO_FILTER = ""


class Condition(NamedTuple):
    """An attribute and the value that it must equal."""

    attribute: str
    value: int


class PeerDataset(NamedTuple):
    """The data that all systems load and search.

    base: Rows, (n, d) float32 of unit length. queries: (q, d). values: A value per row, by
    attribute.
    """

    base: NDArray[np.float32]
    queries: NDArray[np.float32]
    values: Mapping[str, NDArray[np.int64]]

    def attributes(self, row: int) -> dict[str, int]:
        """Returns the attributes of a row."""
        return {name: int(column[row]) for name, column in self.values.items()}


def make_dataset(vectors: NDArray[np.float32], queries: int = 1_000) -> PeerDataset:
    """Splits a matrix into rows and queries, and draws attributes.

    Raises InvalidRequest: There are too few vectors, or one is zero.
    """
    if len(vectors) < queries + K:
        raise InvalidRequest(
            f"there are {len(vectors):,} vectors; {queries:,} queries with k {K} need at least "
            f"{queries + K:,}",
            field="vectors",
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(lengths > 0):
        raise InvalidRequest("a vector has length zero; remove it", field="vectors")
    matrix = (vectors / lengths).astype(np.float32)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(matrix))
    base = matrix[np.sort(order[queries:])]
    values = {name: rng.integers(0, count, len(base)) for name, count in ATTRIBUTES.items()}
    return PeerDataset(base, matrix[np.sort(order[:queries])], values)


def condition_of(attribute: str, number: int) -> Condition | None:
    """Returns the condition of a query; None without a filter. Queries take values in turn."""
    return Condition(attribute, number % ATTRIBUTES[attribute]) if attribute else None


class Judge:
    """Judges the rows found for the queries; rows as good as the exact k-th best are right.

    Args:
        dataset: What is searched.
        attribute: Attribute of the filter. Rows that do not match are wrong.
    """

    def __init__(self, dataset: PeerDataset, attribute: str = NO_FILTER) -> None:
        self.dataset = dataset
        self.attribute = attribute
        queries = dataset.queries
        self._edges = np.full(len(queries), np.inf)
        self._wanted = np.zeros(len(queries), np.int64)
        values = ATTRIBUTES.get(attribute, 1)
        for first in range(min(values, len(queries))):
            rows = dataset.base
            if condition := condition_of(attribute, first):
                rows = rows[dataset.values[attribute] == condition.value]
            if k := min(K, len(rows)):
                self._edges[first::values] = exact_edges(rows, queries[first::values], k)
                self._wanted[first::values] = k

    def recall(self, replies: Iterable[tuple[int, Sequence[int]]]) -> float:
        """Returns the share of the exact k best that was found, over all replies.

        Args:
            replies: Number of the query, and the rows found.
        """
        good = wanted = 0
        for number, found in replies:
            rows = np.unique(np.asarray(found, np.int64))
            if condition := condition_of(self.attribute, number):
                rows = rows[self.dataset.values[self.attribute][rows] == condition.value]
            scores = self.dataset.base[rows] @ self.dataset.queries[number]
            most = int(self._wanted[number])
            good += min(int((scores >= self._edges[number] - TIE).sum()), most)
            wanted += most
        return good / wanted if wanted else 0.0
