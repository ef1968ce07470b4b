"""Checks of the models in snapshots that were trained."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from index_builder.behaviour import ranker_selection
from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.lambdamart import LambdaMartOptions
from index_builder.interactions.records import Interactions
from index_builder.releases.gate import GateOptions, judge
from index_builder.releases.gate_report import CheckOutcome, GateReport
from index_builder.releases.thresholds import set_thresholds
from nearline.store.snapshot import Store
from tests.index_builder.releases.gate_snapshots import calm, failed, message
from tests.index_builder.releases.shop import DAYS, bought, build

_FEW = {"als plain", "popular plain", "item_to_item plain", "session tau=5"}
LATER = bought(days=5, first=DAYS)


@dataclass(frozen=True)
class Shop:
    """A store, and its snapshots: trained on all days but the last, on all, and on nothing."""

    store: Path
    older: str
    newer: str
    nothing: str


def _some(rows: Interactions, **options: object) -> object:
    return [one for one in train_candidates(rows, repeats=True) if one.name in _FEW]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    set_thresholds(Store(folder), "default", calm())
    with pytest.MonkeyPatch.context() as patch:
        # Only few and small candidates are trained, to save time.
        for module in ("training", "ranker_selection"):
            patch.setattr(f"index_builder.behaviour.{module}.train_candidates", _some)
        patch.setattr(ranker_selection, "LambdaMartOptions", lambda: LambdaMartOptions(trees=10))

        async def builds() -> list[str]:
            return [await build(folder, rows) for rows in (bought(DAYS - 1), bought(), None)]

        yield Shop(folder, *asyncio.run(builds()))


async def gate(
    shop: Shop, candidate: str, live: str | None, later: Interactions | None = None
) -> GateReport:
    return await judge(Store(shop.store), "default", candidate, live, GateOptions(later=later))


async def test_newer_models_pass(shop: Shop) -> None:
    report = await gate(shop, shop.newer, shop.older, LATER)
    assert failed(report) == []
    assert report.outcome("recommend") is CheckOutcome.PASSED


async def test_a_snapshot_without_its_models_is_refused(shop: Shop) -> None:
    assert failed(await gate(shop, shop.nothing, shop.older, LATER)) == ["recommend"]


async def test_too_few_later_users_skip_the_check(shop: Shop) -> None:
    few = LATER.some(np.flatnonzero(LATER.user < 5))
    report = await gate(shop, shop.newer, shop.older, few)
    assert report.outcome("recommend") is CheckOutcome.SKIPPED
    assert "5 known users" in message(report, "recommend")
    # Interactions that are not after the training are ignored.
    none = await gate(shop, shop.newer, shop.older, bought())
    assert message(none, "recommend").startswith("0 known users")
