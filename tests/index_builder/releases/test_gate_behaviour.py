"""Checks of the models: leaked labels, stale factors, items without interactions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from index_builder.behaviour import ranker_selection
from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.behaviour.lambdamart import LambdaMartOptions, unavailable_reason
from index_builder.behaviour.ranker_dataset import RankerDataset, build_dataset
from index_builder.interactions.records import Interactions
from index_builder.releases.gate import GateOptions, judge
from index_builder.releases.gate_report import CheckOutcome, GateReport
from index_builder.releases.thresholds import set_thresholds
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import MANIFEST, Store
from retrieval.behaviour.features import FeatureExtractor
from tests.index_builder.releases.gate_snapshots import calm, failed, message
from tests.index_builder.releases.shop import DAYS, bought, build

_FEW = {"als plain", "popular plain", "item_to_item plain", "session tau=5"}
LATER = bought(days=5, first=DAYS)


@dataclass(frozen=True)
class Shop:
    """A store, and its snapshots by defect."""

    store: Path
    good: str
    newer: str
    leaked: str
    nothing: str


def _some(rows: Interactions, **options: object) -> object:
    return [one for one in train_candidates(rows, repeats=True) if one.name in _FEW]


def _leaking(features: FeatureExtractor, task: EvaluationTask, seed: int) -> RankerDataset:
    """Returns lists whose features reveal the labels, as a careless join would."""
    lists = build_dataset(features, task, seed)
    values = lists.values.copy()
    values[:, lists.names.index("popularity")] = 1 + lists.labels
    return lists._replace(values=values)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if told := unavailable_reason():
        pytest.skip(f"no ranker is trained here: {told}")
    folder = tmp_path_factory.mktemp("shop")
    set_thresholds(Store(folder), "default", calm())
    with pytest.MonkeyPatch.context() as patch:
        # Only few and small candidates are trained, to save time.
        for module in ("training", "ranker_selection"):
            patch.setattr(f"index_builder.behaviour.{module}.train_candidates", _some)
        patch.setattr(ranker_selection, "LambdaMartOptions", lambda: LambdaMartOptions(trees=10))

        async def builds() -> list[str]:
            made = [await build(folder, bought(DAYS - 1)), await build(folder, bought())]
            patch.setattr(ranker_selection, "build_dataset", _leaking)
            return [*made, await build(folder, bought()), await build(folder, None)]

        yield Shop(folder, *asyncio.run(builds()))


async def gate(
    shop: Shop, candidate: str, live: str | None, later: Interactions | None = None
) -> GateReport:
    return await judge(Store(shop.store), "default", candidate, live, GateOptions(later=later))


async def test_a_good_one_passes_and_keeps_its_promise(shop: Shop) -> None:
    report = await gate(shop, shop.newer, shop.good, LATER)
    assert failed(report) == []
    made = ("cold_items", "fresh", "factors", "recommend", "promise")
    assert {report.outcome(one) for one in made} == {CheckOutcome.PASSED}


async def test_a_ranker_that_saw_its_labels_breaks_its_promise(shop: Shop) -> None:
    report = await gate(shop, shop.leaked, None, LATER)
    assert failed(report) == ["promise"]
    assert "labels leaked" in message(report, "promise")
    # Compared with the live snapshot, its lists may be worse, too; nothing else is wrong.
    beside = await gate(shop, shop.leaked, shop.good, LATER)
    assert "promise" in failed(beside)
    assert set(failed(beside)) <= {"promise", "recommend"}


async def test_without_later_interactions_an_implausible_promise_is_refused(
    shop: Shop,
) -> None:
    report = await gate(shop, shop.leaked, shop.good)
    assert failed(report) == ["promise"]
    assert "too good to be true" in message(report, "promise")
    honest = await gate(shop, shop.newer, shop.good)
    assert honest.outcome("promise") is CheckOutcome.SKIPPED
    assert "--interactions" in message(honest, "promise")
    assert honest.passed


async def test_stale_factors_are_refused(shop: Shop) -> None:
    report = await gate(shop, shop.good, shop.newer, LATER)
    assert failed(report) == ["fresh"]
    assert "24.0 hours older than that of the live snapshot" in message(report, "fresh")


async def test_factors_of_another_build_are_refused(shop: Shop) -> None:
    store = Store(shop.store)
    manifest = store.manifest("default", shop.newer)
    path = store.snapshot_folder("default", shop.newer) / MANIFEST
    text = path.read_text("utf-8")
    manifest.behaviour.factors_id = "0" * 64
    try:
        path.write_text(message_to_json(manifest), "utf-8")
        report = await gate(shop, shop.newer, shop.good)
    finally:
        path.write_text(text, "utf-8")
    assert failed(report) == ["factors"]


async def test_a_snapshot_without_its_models_is_refused(shop: Shop) -> None:
    report = await gate(shop, shop.nothing, shop.good, LATER)
    assert failed(report) == ["cold_items"]
    assert report.outcome("fresh") is CheckOutcome.SKIPPED


async def test_too_few_later_users_skip_the_check(shop: Shop) -> None:
    few = LATER.some(np.flatnonzero(LATER.user < 5))
    report = await gate(shop, shop.newer, shop.good, few)
    assert report.outcome("recommend") is CheckOutcome.SKIPPED
    assert "5 known users" in message(report, "recommend")
    # Interactions that are not after the training are ignored.
    none = await gate(shop, shop.newer, shop.good, bought())
    assert message(none, "recommend").startswith("0 known users")
