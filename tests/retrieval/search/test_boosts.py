"""The scores that boosts make: by hand, in order, and below names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from hypothesis import given, strategies as st

from nearline.contract import Boost, Decay
from retrieval.protocols.shard import ShardHits
from retrieval.search.boosts import boosted_hits, boosted_scores, values_of, with_origins

_WEIGHTS = st.lists(st.floats(-10, 10), min_size=1, max_size=16)


def weighing(*weights: float) -> list[Boost]:
    return [Boost(field="a", weight=weight, any_of=("x",)) for weight in weights]


def scores(
    base: list[float], titles: list[float], values: list[list[float]], *weights: float
) -> list[float]:
    columns = np.array(base), np.array(titles, np.float64), np.array(values, np.float64)
    found: list[float] = boosted_scores(*columns, weighing(*weights)).tolist()
    return found


@given(
    weights=_WEIGHTS,
    base=st.floats(-1, 1),
    data=st.data(),
)
def test_a_boost_raises_a_score_by_its_sign_and_keeps_the_order_of_scores(
    weights: list[float], base: float, data: st.DataObject
) -> None:
    values = [data.draw(st.floats(0, 1)) for _ in weights]
    at = data.draw(st.integers(0, len(weights) - 1))
    more = [*values]
    more[at] = 1.0
    first, second = scores([base] * 2, [0] * 2, [values, more], *weights)
    assert (second - first) * np.sign(weights[at]) >= -1e-5
    # With equal values, the better one stays the better one.
    other = data.draw(st.floats(-1, 1))
    low, high = scores(sorted((base, other)), [0] * 2, [values, values], *weights)
    assert low <= high
    assert np.sign(first) == np.sign(np.float32(base)) or abs(base) < 1e-30


@given(weights=_WEIGHTS, data=st.data())
def test_no_boost_outranks_a_name(weights: list[float], data: st.DataObject) -> None:
    share = st.floats(0, 1)
    rows = [[data.draw(share) for _ in weights] for _ in range(2)]
    # The legs of a hybrid search add at most 1, and titles of one level differ by less than half.
    level = data.draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 3.0]))
    lower = data.draw(st.floats(0, level - 0.05))
    base = [data.draw(share), data.draw(share)]
    named, other = scores(base, [32 * level, 32 * lower], rows, *weights)
    assert named > other


def hits(ids: str, scores: list[float], boosts: list[list[float]]) -> ShardHits:
    n = len(ids)
    return ShardHits(list(ids), scores, [0] * n, [0] * n, [1] * n, boosts=boosts)


def test_only_candidates_are_boosted() -> None:
    parts = [
        (0, hits("ac", [0.9, 0.3], [[0.0], [1.0]])),
        (1, hits("bd", [0.5, 0.2], [[1.0], [1.0]])),
    ]
    boosts = weighing(9.0)

    def found(k: int, candidates: int) -> list[tuple[int, str, float]]:
        ranked = boosted_hits(parts, k, candidates, boosts, lexical=False, explain=True)
        return [(shard, hit.id, round(hit.score, 4)) for shard, hit in ranked]

    assert found(9, 3) == [(1, "b", 5.0), (0, "c", 3.0), (0, "a", 0.9)]
    assert found(2, 9) == [(1, "b", 5.0), (0, "c", 3.0)]
    (_, first), *_ = boosted_hits(parts, 1, 9, boosts, lexical=False, explain=True)
    assert first.explanation is not None
    assert (first.explanation.dense_score, first.explanation.dense_rank) == (0.5, 2)
    assert first.explanation.boosts == (1.0,)
    assert boosted_hits([(0, hits("", [], []))], 3, 9, boosts, lexical=True, explain=False) == []


def test_a_shard_of_an_older_release_has_no_values() -> None:
    old, new = hits("ab", [1, 1], []), hits("c", [1], [[0.5, 1.0]])
    assert values_of([old, new], weighing(1, 2)).tolist() == [[0, 0], [0, 0], [0.5, 1]]


def test_now_is_in_whole_seconds_and_of_the_kind_of_the_attribute() -> None:
    now = datetime(2026, 5, 1, 12, 0, 3, 999_999, tzinfo=UTC)
    east = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    boosts = [
        Boost(field="time", decay=Decay(scale=1.0)),
        Boost(field="number", decay=Decay(scale=1.0)),
        Boost(field="time", decay=Decay(scale=1.0, origin=east)),
        Boost(field="time", decay=Decay(scale=1.0, origin=east.replace(tzinfo=None))),
        Boost(field="number", any_of=(1,)),
    ]
    origins = [
        boost.decay and boost.decay.origin
        for boost in with_origins(boosts, {"time": "time", "number": "double"}, now)
    ]
    second = datetime(2026, 5, 1, 12, 0, 3, tzinfo=UTC)
    assert origins[:2] == [second, int(second.timestamp())]
    assert origins[2:] == [datetime(2026, 5, 1, 12, tzinfo=UTC), east.replace(tzinfo=UTC), None]
