"""Tests of the callers, with a client that searches by brute force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers import callers
from benchmarks.peers.callers import CallerLoad, Target, run_inserts, run_round
from benchmarks.peers.dataset import Condition, PeerDataset, make_dataset
from benchmarks.peers.questions import insert_and_find
from benchmarks.peers.system import PeerClient


class BruteForceClient(PeerClient):
    """Width 1 finds the best row alone."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        super().__init__(address, dataset)
        self.added: dict[int, NDArray[np.float32]] = {}

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        rows = np.flatnonzero(self.dataset.matching(condition))
        scores = dict(zip(rows.tolist(), self.dataset.base[rows] @ vector, strict=True))
        scores |= {row: one @ vector for row, one in self.added.items()}
        return sorted(scores, key=lambda row: -scores[row])[: 1 if width == 1 else self.dataset.k]

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        self.added |= zip(rows, vectors, strict=True)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    vectors = np.abs(np.random.default_rng(2).normal(size=(140, 8))).astype(np.float32)
    dataset = make_dataset(vectors, tmp_path, queries=40, k=5, seed=0)
    yield Target(BruteForceClient, "here", dataset)
    callers._kept.clear()


@pytest.mark.parametrize(("width", "recall"), [(64, 1.0), (1, 0.2)])
@pytest.mark.parametrize("attribute", ["", "half"])
def test_a_round_judges_all_queries(
    target: Target, width: int, recall: float, attribute: str
) -> None:
    found = run_round(target, CallerLoad(width, attribute, callers=2, seconds=1.0))
    assert found.recall == pytest.approx(recall)
    assert found.qps > 0
    assert 0 < found.p50_ms <= found.p99_ms


def test_inserts_add_new_rows_that_leave_the_recall_as_it_is(target: Target) -> None:
    assert run_inserts(target, rate=1e6, seconds=0.02) > 0
    client = callers.open_client(target)
    assert isinstance(client, BruteForceClient)
    assert min(client.added) == len(target.dataset.base)
    assert len(client.added) % 10 == 0
    assert run_round(target, CallerLoad(64, "", callers=2, seconds=0.3)).recall == 1.0


def test_an_inserted_row_is_found(target: Target) -> None:
    assert 0 < insert_and_find(target, 0) < 10


def test_a_new_address_has_a_new_client(target: Target) -> None:
    first = callers.open_client(target)
    assert callers.open_client(target) is first
    assert callers.open_client(target._replace(address="there")) is not first
