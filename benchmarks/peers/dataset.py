"""Data set of the peers: vectors, attributes, held-out queries and their exact results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.closed_loop import TIE
from nearline.errors import InvalidRequest

# Number of values of each attribute, which the rows have with equal probability.
ATTRIBUTES = {"half": 2, "twentieth": 20, "hundredth": 100, "tenant": 1_000}
# Query n asks for value n of the attribute, modulo their number. "" asks for no value.
NO_FILTER = ""
_ADDED = -1
_BLOCK = 100
_TEXT_CHARACTERS = 200


class Condition(NamedTuple):
    """An attribute and the value that it must equal."""

    attribute: str
    value: int


@dataclass(frozen=True)
class PeerDataset:
    """A data set that processes share by memory-mapped files.

    base: Rows to search, (n, d) float32 at unit length. queries: (q, d). values: Attribute values
    of the rows, (n, attributes) int32, columns in the order of `ATTRIBUTES`.
    """

    folder: Path
    k: int
    base: NDArray[np.float32]
    queries: NDArray[np.float32]
    values: NDArray[np.int32]

    def __reduce__(self) -> tuple[object, ...]:
        # Other processes map the files, too.
        return open_dataset, (self.folder, self.k)

    def attributes(self, row: int) -> dict[str, int]:
        """Returns the attributes of a row; rows that are added have values that no filter keeps."""
        if row >= len(self.values):
            return dict.fromkeys(ATTRIBUTES, _ADDED)
        return dict(zip(ATTRIBUTES, self.values[row].tolist(), strict=True))

    def mirrored(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Returns vectors for rows that are added: those of others, negated.

        They are as hard to insert as the others, but among the best of no query, so that exact
        results stay valid.
        """
        vectors: NDArray[np.float32] = -self.base[np.asarray(rows) % len(self.base)]
        return vectors

    def text(self, row: int) -> str:
        """Returns the text of a row, its payload: 200 characters."""
        return (f"text of row {row}, " * _TEXT_CHARACTERS)[:_TEXT_CHARACTERS]

    def matching(self, condition: Condition | None) -> NDArray[np.bool_]:
        """Returns which rows match."""
        if condition is None:
            return np.ones(len(self.base), np.bool_)
        column = list(ATTRIBUTES).index(condition.attribute)
        matching: NDArray[np.bool_] = self.values[:, column] == condition.value
        return matching


def condition_of(attribute: str, number: int) -> Condition | None:
    """Returns the condition of a query, None without a filter."""
    return Condition(attribute, number % ATTRIBUTES[attribute]) if attribute else None


def row_id(row: int) -> str:
    """Returns the id of a row; int() is the way back."""
    return f"{row:09d}"


def make_dataset(
    vectors: NDArray[np.float32], folder: Path, queries: int, k: int, seed: int
) -> PeerDataset:
    """Splits a matrix into rows and queries, draws attributes, and writes the files.

    Raises InvalidRequest: There are too few vectors, or one is zero.
    """
    if len(vectors) < queries + k:
        raise InvalidRequest(
            f"there are {len(vectors)} vectors; {queries} queries with k {k} need at least "
            f"{queries + k}",
            field="vectors",
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(lengths > 0):
        raise InvalidRequest("a vector has length zero; remove it", field="vectors")
    matrix = (vectors / lengths).astype(np.float32)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(matrix))
    np.save(folder / "queries.npy", matrix[np.sort(order[:queries])])
    np.save(folder / "base.npy", matrix[np.sort(order[queries:])])
    counts = [rng.integers(0, most, len(matrix) - queries) for most in ATTRIBUTES.values()]
    np.save(folder / "values.npy", np.stack(counts, axis=1).astype(np.int32))
    return open_dataset(folder, k)


def open_dataset(folder: Path, k: int) -> PeerDataset:
    """Maps the files of a folder."""
    base, queries, values = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("base", "queries", "values")
    )
    return PeerDataset(folder, k, base, queries, values)


def exact_edges(dataset: PeerDataset, attribute: str) -> NDArray[np.float32]:
    """Returns each query's edge by brute force: the score of its exact k-th best matching row, or
    of the last one if fewer match; infinity if none does.
    """
    if not attribute:
        blocks = [
            np.partition(dataset.queries[first : first + _BLOCK] @ dataset.base.T, -dataset.k)
            for first in range(0, len(dataset.queries), _BLOCK)
        ]
        return np.concatenate([block[:, -dataset.k] for block in blocks])
    edges = np.full(len(dataset.queries), np.inf, np.float32)
    for value in range(min(ATTRIBUTES[attribute], len(edges))):
        rows = dataset.base[dataset.matching(Condition(attribute, value))]
        asked = slice(value, None, ATTRIBUTES[attribute])
        if place := min(dataset.k, len(rows)):
            scores = dataset.queries[asked] @ rows.T
            edges[asked] = np.partition(scores, -place)[:, -place]
    return edges


def mean_recall(
    dataset: PeerDataset,
    attribute: str,
    edges: NDArray[np.float32],
    found: Sequence[tuple[int, Sequence[int]]],
) -> float:
    """Returns the share of the exact k best that was found, over all replies.

    Args:
        dataset: What was searched.
        attribute: Attribute of the filter. Rows that do not match, and rows that were added, count
            as missing.
        edges: See `exact_edges`.
        found: Number of the query, and the rows found.
    """
    matches = {
        value: dataset.matching(Condition(attribute, value))
        for value in (range(ATTRIBUTES[attribute]) if attribute else ())
    }
    counts = {value: int(rows.sum()) for value, rows in matches.items()}
    good = wanted = 0
    for number, rows in found:
        condition = condition_of(attribute, number)
        most = min(dataset.k, counts[condition.value]) if condition else dataset.k
        distinct = np.unique(np.asarray(rows, np.int64))
        distinct = distinct[distinct < len(dataset.base)]
        if condition:
            distinct = distinct[matches[condition.value][distinct]]
        scores = dataset.base[distinct] @ dataset.queries[number]
        good += min(int((scores >= edges[number] - TIE).sum()), most)
        wanted += most
    return good / wanted if wanted else 0.0
