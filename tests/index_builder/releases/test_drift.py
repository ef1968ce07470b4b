"""Drift of recorded searches, and the stability index by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index_builder.releases.drift import LIMIT, measure_drift, stability_index
from nearline.errors import NotFound
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import write_traffic
from nearline.v1 import retrieval_pb2
from tests.index_builder.releases.gate_snapshots import documents, publish, texts
from tests.index_builder.releases.recorded_searches import record_searches, search

NUMBERS = st.lists(st.floats(-1, 1), min_size=1, max_size=50)


def test_the_stability_index_is_the_sum_over_the_bins_by_hand() -> None:
    # Two bins, cut at the median 2.5; (2, 2) and (1, 3) of four, half an observation more in each.
    b, s = (2.5 / 5, 2.5 / 5), (1.5 / 5, 3.5 / 5)
    by_hand = sum((y - x) * math.log(y / x) for x, y in zip(b, s, strict=True))
    assert stability_index([1, 2, 3, 4], [1, 3, 4, 9], bins=2) == pytest.approx(by_hand)


def test_the_stability_index_has_its_usual_bands(rng: np.random.Generator) -> None:
    baseline = rng.normal(size=1_000)
    assert stability_index(baseline, rng.normal(size=1_000)) < 0.05
    # A normal distribution that moved by half its width; the index is near (0.5)^2 then.
    assert 0.15 < stability_index(baseline, rng.normal(0.5, size=1_000)) < 0.35
    assert stability_index(baseline, rng.normal(2, size=1_000)) > 1


@given(baseline=NUMBERS, sample=NUMBERS)
def test_the_stability_index_is_a_number_of_at_least_0(
    baseline: list[float], sample: list[float]
) -> None:
    assert 0 <= stability_index(baseline, sample) < math.inf
    assert stability_index(baseline, baseline) == 0


def test_equal_numbers_are_one_bin_and_those_beside_it_are_another() -> None:
    assert stability_index([1.0] * 10, [1.0] * 10) == 0
    for beside in (0.0, 2.0):
        assert stability_index([1.0] * 10, [beside] * 10) > 1


def test_the_smallest_samples_of_one_distribution_hardly_ever_exceed_the_limit(
    rng: np.random.Generator,
) -> None:
    found = [stability_index(*rng.normal(size=(2, 200))) for _ in range(2_000)]
    assert max(found) < LIMIT and np.mean(found) == pytest.approx(4 * (2 / 200), rel=0.1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    publish(tmp_path, documents(texts(20)), promote=True)
    return Store(tmp_path)


def current(store: Store) -> str:
    return store.alias_in_force("default").current


def test_the_newest_searches_are_compared_with_the_first_ones(
    store: Store, rng: np.random.Generator
) -> None:
    first, last = rng.normal(0.5, 0.1, 300), rng.normal(0.6, 0.1, 300)
    record_searches(store, first)
    assert measure_drift(store, "default") == 0, "there are too few on either side"
    record_searches(store, last)
    found = measure_drift(store, "default")
    assert found > LIMIT
    assert found == pytest.approx(stability_index(first, last), abs=1e-3)
    # Another snapshot is current, which has answered nothing so far.
    publish(Path(store.url), documents(texts(20)), promote=True)
    assert measure_drift(store, "default") == 0


def test_searches_that_do_not_compare_are_left_out(store: Store, rng: np.random.Generator) -> None:
    record_searches(store, rng.normal(0.5, 0.1, 500))
    before = measure_drift(store, "default")
    assert 0 < before < LIMIT
    snapshot = current(store)

    def others() -> Iterable[RecordedRequest]:
        filtered = search(snapshot, 9.0)
        filtered.search.options.filter.exists.SetInParent()
        boosted = search(snapshot, 9.0)
        boosted.search.options.boosts.add()
        personal = search(snapshot, 9.0)
        personal.personal = True
        listed = RecordedRequest(
            snapshot_id=snapshot, scores=[9.0], recommend=retrieval_pb2.RecommendRequest()
        )
        nothing = search(snapshot, 9.0)
        del nothing.scores[:]
        yield from (filtered, boosted, personal, listed, nothing, search("another", 9.0))

    for one in others():
        write_traffic(store, "default", [one] * 250)
        assert measure_drift(store, "default") == before


@pytest.mark.parametrize("words", [{"mode": retrieval_pb2.SEARCH_MODE_LEXICAL}, {"text": True}])
def test_scores_of_other_modes_are_compared_among_themselves(
    store: Store, rng: np.random.Generator, words: dict[str, Any]
) -> None:
    record_searches(store, rng.normal(0.5, 0.1, 500))
    before = measure_drift(store, "default")
    record_searches(store, rng.normal(20, 1, 500), **words)
    assert measure_drift(store, "default") < LIMIT
    record_searches(store, rng.normal(30, 1, 500), **words)
    assert measure_drift(store, "default") > LIMIT > before


def test_without_a_snapshot_there_is_no_drift(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        measure_drift(Store(tmp_path), "default")
