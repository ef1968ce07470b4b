"""Tests of the rounds, with systems that search by brute force."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers.comparison import PeerRound, compare, least_width, run_round, summary
from benchmarks.peers.dataset import CALLERS, Condition, Judge, K, PeerDataset, make_dataset
from benchmarks.peers.system import System


class BruteForce(System):
    """Finds the whole width of 64 or more, and the best row alone below."""

    def __init__(self, name: str, dataset: PeerDataset) -> None:
        self.name = name
        self.dataset = dataset
        self.searches_left: float = float("inf")

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        yield

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        self.searches_left -= 1
        if self.searches_left < 0:
            raise ConnectionError("it was killed")
        scores = self.dataset.base @ vector
        if condition:
            scores[self.dataset.values[condition.attribute] != condition.value] = -np.inf
        rows: list[int] = np.argsort(-scores)[: K if self.width >= 64 else 1].tolist()
        return rows


@pytest.fixture(scope="module")
def dataset() -> PeerDataset:
    vectors = np.random.default_rng(2).normal(size=(140, 8)).astype(np.float32)
    return make_dataset(vectors, queries=40)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as pool:
        yield pool


@pytest.mark.parametrize(("width", "recall"), [(64, 1.0), (10, 1 / K)])
@pytest.mark.parametrize("attribute", ["", "half"])
def test_a_round_judges_what_was_found(
    dataset: PeerDataset, callers: ThreadPoolExecutor, width: int, recall: float, attribute: str
) -> None:
    system = BruteForce("peer", dataset)
    system.width = width
    found = run_round(system, Judge(dataset, attribute), callers, seconds=0.01)
    assert found.recall == pytest.approx(recall)
    assert found.qps > 0
    assert 0 < found.p50_ms <= found.p99_ms


@pytest.mark.parametrize(("target", "width"), [(1 / K - 0.01, 10), (0.95, 64), (1.01, None)])
async def test_the_smallest_width_that_reaches_the_recall_is_set(
    dataset: PeerDataset, callers: ThreadPoolExecutor, target: float, width: int | None
) -> None:
    system = BruteForce("peer", dataset)
    assert await least_width(system, Judge(dataset), callers, target) == width
    assert width is None or system.width == width


def test_the_ratio_is_of_rounds_of_the_same_turn() -> None:
    ours = [PeerRound(qps, 1.0, 2.0, 0.99) for qps in (100.0, 300.0, 900.0)]
    theirs = [PeerRound(qps, 3.0, 4.0, 0.96) for qps in (200.0, 300.0, 300.0)]
    assert summary(theirs, ours) == (PeerRound(300.0, 3.0, 4.0, 0.96), 1.0)
    assert summary(theirs, []) == (PeerRound(300.0, 3.0, 4.0, 0.96), None)
    assert summary([], ours) == (None, None)


async def test_a_system_that_fails_is_left_out_and_the_others_are_measured(
    dataset: PeerDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, dying = BruteForce("nearline", dataset), BruteForce("dying", dataset)
    # It dies when its width is chosen.
    dying.searches_left = 50
    found = await compare([ours, dying], dataset, tmp_path, ["", "half"], seconds=0.01)
    assert [(one.system, one.attribute, one.target, one.width) for one in found] == [
        ("nearline", attribute, target, 64) for attribute in ("", "half") for target in (0.95, 0.99)
    ]
    assert all(one.ratio == 1.0 for one in found)
    assert "dying failed and is left out: ConnectionError: it was killed" in capsys.readouterr().err
