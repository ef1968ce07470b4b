"""The weight of the legs, fitted to simulated clicks whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.evaluation.leg_weights import ClickedSearch, propose_weight

HITS, SERVED = 10, 0.7


def simulated(
    searches: int, truth: float, seed: int, served: float = SERVED
) -> list[ClickedSearch]:
    """Returns searches whose users look at a place the less the lower it is, and click by a truth.

    truth: The weight whose scores say how good a hit is.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(searches):
        dense, lexical = rng.random((2, HITS))
        order = np.argsort(-(served * dense + (1 - served) * lexical))
        dense, lexical = dense[order], lexical[order]
        good = truth * dense + (1 - truth) * lexical
        seen = rng.random(HITS) < 1 / np.log2(np.arange(2, HITS + 2))
        found.append(ClickedSearch(dense, lexical, seen & (rng.random(HITS) < good**4)))
    return found


@pytest.mark.parametrize("truth", [0.1, 0.3])
def test_the_weight_behind_the_clicks_is_found(truth: float) -> None:
    found = propose_weight(simulated(4_000, truth, seed=1), SERVED)
    assert found is not None
    # What bias is left draws it to the weight that served.
    assert truth - 0.05 <= found.dense_weight <= 0.55
    assert 0 < found.gain.low < found.gain.mean < found.gain.high


def test_of_weights_that_are_right_none_is_found_better() -> None:
    proposals = [propose_weight(simulated(400, SERVED, seed), SERVED) for seed in range(60)]
    better = [one for one in proposals if one is not None and one.gain.low > 0]
    # One in forty, if position were no bias.
    assert len(better) <= 3


def test_clicks_that_fall_on_any_hit_change_nothing() -> None:
    rng = np.random.default_rng(3)
    searches = [
        one._replace(clicked=rng.random(HITS) < 1 / np.log2(np.arange(2, HITS + 2)))
        for one in simulated(1_000, 0.0, seed=4)
    ]
    found = propose_weight(searches, SERVED)
    assert found is not None and found.gain.low <= 0


def test_pairs_are_neighbours_of_which_one_was_clicked() -> None:
    one = ClickedSearch(
        np.array([0.9, 0.5, 0.4]), np.array([0.0, 0.8, 0.9]), np.array([False, True, False])
    )
    found = propose_weight([one] * 10, 0.9)
    assert found is not None and found.searches == 3
    # Between 1/2 and 2/3, both pairs are as clicked; at 0.9, one of two.
    assert found.dense_weight == pytest.approx(0.65) and found.gain.mean == pytest.approx(0.5)


@pytest.mark.parametrize("clicked", [[False] * 3, [True] * 3])
def test_searches_without_a_pair_propose_nothing(clicked: list[bool]) -> None:
    one = ClickedSearch(np.ones(3), np.ones(3), np.array(clicked))
    assert propose_weight([one] * 9, 0.5) is None
    assert propose_weight([], 0.5) is None
