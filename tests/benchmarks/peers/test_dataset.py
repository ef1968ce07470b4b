"""Tests of the data set: exact results by brute force."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers.dataset import (
    ATTRIBUTES,
    NO_FILTER,
    Condition,
    PeerDataset,
    condition_of,
    exact_edges,
    make_dataset,
    mean_recall,
    row_id,
)
from nearline.errors import InvalidRequest

K = 5
QUERIES = 250


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(2_250, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(vectors: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> PeerDataset:
    return make_dataset(vectors, tmp_path_factory.mktemp("data"), QUERIES, K, seed=1)


def exact_rows(dataset: PeerDataset, number: int, attribute: str) -> list[int]:
    matching = np.flatnonzero(dataset.matching(condition_of(attribute, number)))
    scores = dataset.base[matching] @ dataset.queries[number]
    rows: list[int] = matching[np.argsort(-scores)][:K].tolist()
    return rows


def test_rows_and_queries_divide_the_vectors_at_unit_length(
    vectors: NDArray[np.float32], dataset: PeerDataset
) -> None:
    both = np.concatenate([dataset.base, dataset.queries])
    assert both.shape == vectors.shape
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1.0, atol=1e-5)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(both[:, 0]), np.sort(units[:, 0]), atol=1e-6)


def test_another_process_has_the_same_data(dataset: PeerDataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.base, dataset.base)
    np.testing.assert_array_equal(copy.values, dataset.values)


@pytest.mark.parametrize(("attribute", "share"), [("half", 0.5), ("twentieth", 0.05)])
def test_a_filter_keeps_its_share_of_the_rows(
    dataset: PeerDataset, attribute: str, share: float
) -> None:
    kept = dataset.matching(Condition(attribute, 1)).mean()
    assert kept == pytest.approx(share, abs=4 * (share * (1 - share) / len(dataset.base)) ** 0.5)


@pytest.mark.parametrize("attribute", [NO_FILTER, *ATTRIBUTES])
def test_exact_rows_have_recall_one(dataset: PeerDataset, attribute: str) -> None:
    edges = exact_edges(dataset, attribute)
    found = [(number, exact_rows(dataset, number, attribute)) for number in range(QUERIES)]
    assert mean_recall(dataset, attribute, edges, found) == 1.0


def test_recall_is_the_share_of_exact_rows(dataset: PeerDataset) -> None:
    edges = exact_edges(dataset, NO_FILTER)
    worst = [int(row) for row in np.argsort(dataset.base @ dataset.queries[0])[:2]]
    found = [(0, [*exact_rows(dataset, 0, NO_FILTER)[:3], *worst]), (1, [])]
    assert mean_recall(dataset, NO_FILTER, edges, found) == pytest.approx(3 / (2 * K))


def test_repeated_rows_count_once(dataset: PeerDataset) -> None:
    edges = exact_edges(dataset, NO_FILTER)
    best = exact_rows(dataset, 0, NO_FILTER)[0]
    assert mean_recall(dataset, NO_FILTER, edges, [(0, [best] * K)]) == pytest.approx(1 / K)


def test_rows_that_do_not_match_the_filter_count_as_missing(dataset: PeerDataset) -> None:
    edges = exact_edges(dataset, "half")
    best = exact_rows(dataset, 0, NO_FILTER)
    kept = sum(dataset.attributes(row)["half"] == 0 for row in best)
    assert 0 < kept < K
    assert mean_recall(dataset, "half", edges, [(0, best)]) == pytest.approx(kept / K)


def test_rows_that_were_added_count_as_missing(dataset: PeerDataset) -> None:
    edges = exact_edges(dataset, NO_FILTER)
    added = [len(dataset.base) + number for number in range(K - 1)]
    found = [(0, [exact_rows(dataset, 0, NO_FILTER)[0], *added])]
    assert mean_recall(dataset, NO_FILTER, edges, found) == pytest.approx(1 / K)


def test_rows_that_are_added_mirror_others_and_match_no_filter(dataset: PeerDataset) -> None:
    added = len(dataset.base) + 3
    np.testing.assert_array_equal(dataset.mirrored([added])[0], -dataset.base[3])
    asked = {name: range(values) for name, values in ATTRIBUTES.items()}
    assert all(value not in asked[name] for name, value in dataset.attributes(added).items())


def test_a_row_has_a_text_of_200_characters_and_an_id_that_is_its_number(
    dataset: PeerDataset,
) -> None:
    assert len(dataset.text(12)) == 200
    assert int(row_id(12)) == 12


@pytest.mark.parametrize(
    ("rows", "message"), [(np.ones((20, 4)), "20 vectors"), (np.zeros((300, 4)), "length zero")]
)
def test_vectors_that_cannot_be_used_are_refused(
    rows: NDArray[np.float64], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_dataset(rows.astype(np.float32), tmp_path, QUERIES, K, seed=1)
