"""Tests of the data set: exact results by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers.dataset import (
    ATTRIBUTES,
    NO_FILTER,
    Judge,
    K,
    PeerDataset,
    condition_of,
    make_dataset,
)
from nearline.errors import InvalidRequest

QUERIES = 250


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(2_250, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(vectors: NDArray[np.float32]) -> PeerDataset:
    return make_dataset(vectors, QUERIES)


def exact_rows(dataset: PeerDataset, number: int, attribute: str = NO_FILTER) -> list[int]:
    matching = np.arange(len(dataset.base))
    if condition := condition_of(attribute, number):
        matching = np.flatnonzero(dataset.values[attribute] == condition.value)
    scores = dataset.base[matching] @ dataset.queries[number]
    rows: list[int] = matching[np.argsort(-scores)][:K].tolist()
    return rows


def test_rows_and_queries_divide_the_vectors_at_unit_length(
    vectors: NDArray[np.float32], dataset: PeerDataset
) -> None:
    both = np.concatenate([dataset.base, dataset.queries])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(both, axis=0), np.sort(units, axis=0), atol=1e-6)


@pytest.mark.parametrize(("attribute", "values"), ATTRIBUTES.items())
def test_a_filter_keeps_its_share_of_the_rows(
    dataset: PeerDataset, attribute: str, values: int
) -> None:
    kept, share = (dataset.values[attribute] == 1).mean(), 1 / values
    assert kept == pytest.approx(share, abs=4 * (share * (1 - share) / len(dataset.base)) ** 0.5)


@pytest.mark.parametrize("attribute", [NO_FILTER, *ATTRIBUTES])
def test_exact_rows_have_recall_one(dataset: PeerDataset, attribute: str) -> None:
    found = [(number, exact_rows(dataset, number, attribute)) for number in range(QUERIES)]
    assert Judge(dataset, attribute).recall(found) == 1.0


def test_recall_is_the_share_of_exact_rows(dataset: PeerDataset) -> None:
    worst = [int(row) for row in np.argsort(dataset.base @ dataset.queries[0])[:2]]
    found = [(0, [*exact_rows(dataset, 0)[:3], *worst]), (1, [])]
    assert Judge(dataset).recall(found) == pytest.approx(3 / (2 * K))


def test_repeated_rows_count_once(dataset: PeerDataset) -> None:
    best = exact_rows(dataset, 0)[0]
    assert Judge(dataset).recall([(0, [best] * K)]) == pytest.approx(1 / K)


def test_rows_that_do_not_match_the_filter_count_as_missing(dataset: PeerDataset) -> None:
    best = exact_rows(dataset, 0)
    kept = sum(dataset.attributes(row)["half"] == 0 for row in best)
    assert 0 < kept < K
    assert Judge(dataset, "half").recall([(0, best)]) == pytest.approx(kept / K)


@pytest.mark.parametrize(
    ("rows", "message"), [(np.ones((20, 4)), "20 vectors"), (np.zeros((300, 4)), "length zero")]
)
def test_vectors_that_cannot_be_used_are_refused(rows: NDArray[np.float64], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_dataset(rows.astype(np.float32), QUERIES)
