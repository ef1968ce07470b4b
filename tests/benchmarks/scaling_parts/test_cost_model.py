"""Tests of the cost model on rows whose costs are known."""

from __future__ import annotations

import pytest

from benchmarks.scaling_parts.cost_model import (
    LIST_ROUTER_BYTES,
    REDIS_BYTES,
    ROUTER_US,
    SHARDS_BYTES,
    SHARDS_US,
    SNAPSHOT_BYTES,
    fit_formulas,
    list_us,
)
from tests.benchmarks.scaling_parts.made_up_rows import (
    list_rows,
    redis_row,
    search_row,
    search_rows,
)

_SIZE = {"vectors": 10_000_000, "shards": 16, "callers": 64, "ef": 20}


def test_costs_of_searches_are_found_and_extrapolated() -> None:
    fitted = fit_formulas(search_rows())
    row = search_row(10_000_000, 16, 64)
    for name, figure in (
        (ROUTER_US, "router_us"),
        (SHARDS_US, "shards_us"),
        (SHARDS_BYTES, "shards_rss_bytes"),
    ):
        assert fitted[name].predict(_SIZE) == pytest.approx(row[figure], rel=1e-6)
        assert fitted[name].fit.left_out == pytest.approx(0, abs=1e-6)
    assert fitted[ROUTER_US].text() == "400 + 20 shards"


def test_a_plan_beyond_the_measured_sizes_says_how_far() -> None:
    fitted = fit_formulas(search_rows())
    assert fitted[SHARDS_BYTES].times_beyond(_SIZE) == 10
    assert fitted[ROUTER_US].times_beyond(_SIZE) == 4
    assert fitted[ROUTER_US].times_beyond({**_SIZE, "shards": 2}) == 1


def test_a_size_that_did_not_vary_is_dropped_and_named() -> None:
    fitted = fit_formulas(list_rows((100_000,)))[LIST_ROUTER_BYTES]
    assert [term.text for term in fitted.dropped] == ["users"]
    # The constant, not a multiple of users.
    size = {"items": 1_000_000, "users": 50_000_000}
    assert fitted.predict(size) == pytest.approx(150e6)


def test_bytes_of_items_and_users_are_told_apart() -> None:
    fitted = fit_formulas(list_rows((100_000, 1_000_000)))[SNAPSHOT_BYTES]
    assert fitted.dropped == ()
    assert fitted.fit.coefficients == pytest.approx((5e3, 400))


def test_figures_of_0_and_missing_rows_have_no_formula() -> None:
    fitted = fit_formulas(list_rows((100_000, 1_000_000)))
    assert list_us("hot", "shards") not in fitted
    assert ROUTER_US not in fitted
    assert fit_formulas([]) == {}


def test_bytes_of_a_user_in_redis_are_found() -> None:
    fitted = fit_formulas([redis_row(1_000), redis_row(3_000)])[REDIS_BYTES]
    assert fitted.predict({"users": 50_000_000}) == pytest.approx(25e9)
