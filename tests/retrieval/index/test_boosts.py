"""Values of boosts by hand, at their edges, and for any numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.contract import AttributeValue, Boost, Decay, DecayShape, Growth
from retrieval.index.boosts import boost_values

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TINY, HUGE = 5e-324, 1.7e308


def value(boost: Boost, attribute: AttributeValue) -> float:
    (found,) = boost_values(boost, [attribute])
    return found


def growing(**shape: float) -> Boost:
    return Boost(field="n", growth=Growth(**shape))


def decaying(**fields: Any) -> Boost:
    return Boost(field="n", decay=Decay(**{"scale": 10.0, "origin": 0, **fields}))


@pytest.mark.parametrize(
    ("boost", "attribute", "wanted"),
    [
        (Boost(field="n", any_of=("a", "b")), "b", 1.0),
        (Boost(field="n", any_of=("a", "b")), "c", 0.0),
        (Boost(field="n", any_of=("a",)), ["c", "a"], 1.0),
        (Boost(field="n", any_of=("a",)), [], 0.0),
        (Boost(field="n", any_of=("a",)), None, 0.0),
        (Boost(field="n", any_of=(1,)), 1.0, 1.0),
        (growing(pivot=10.0), 10, 0.5),
        (growing(pivot=10.0), 30, 0.75),
        (growing(pivot=10.0), [10, 30, None], 0.75),
        (growing(pivot=10.0), 0, 0.0),
        (growing(pivot=10.0), -5.0, 0.0),
        (growing(pivot=10.0), "10", 0.0),
        (growing(pivot=10.0), True, 0.0),
        (growing(pivot=HUGE), HUGE, 0.5),
        (growing(pivot=TINY), HUGE, 1.0),
        (growing(pivot=HUGE), TINY, 0.0),
        (growing(top=999.0), 9, 1 / 3),
        (growing(top=999.0), 5_000, 1.0),
        (growing(top=TINY), HUGE, 1.0),
        (decaying(), 0, 1.0),
        (decaying(), 10, 0.5),
        (decaying(), -10.0, 0.5),
        (decaying(), 20, 0.0625),
        (decaying(offset=5), 5, 1.0),
        (decaying(offset=5), 15, 0.5),
        (decaying(offset=5, decay=0.1), 15, 0.1),
        (decaying(shape=DecayShape.EXP), 20, 0.25),
        (decaying(shape=DecayShape.LINEAR), 10, 0.5),
        (decaying(shape=DecayShape.LINEAR), 15, 0.25),
        (decaying(shape=DecayShape.LINEAR), 21, 0.0),
        (decaying(), [100, 10], 0.5),
        (decaying(), "10", 0.0),
        (decaying(), NOW, 0.0),
        (decaying(), None, 0.0),
        *((decaying(shape=one, scale=TINY, origin=-HUGE), HUGE, 0.0) for one in DecayShape),
        *((decaying(shape=one, scale=HUGE), 1.0, 1.0) for one in DecayShape),
        (decaying(origin=NOW, scale=86_400.0), NOW - timedelta(days=1), 0.5),
        (decaying(origin=NOW, scale=86_400.0), NOW + timedelta(days=1), 0.5),
        (decaying(origin=NOW, scale=86_400.0), 5, 0.0),
    ],
)
def test_values_by_hand(boost: Boost, attribute: AttributeValue, wanted: float) -> None:
    assert value(boost, attribute) == pytest.approx(wanted, abs=1e-7)


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 63), (1 << 63) - 1)
_POSITIVE = st.floats(min_value=TINY, max_value=HUGE)
_DECAYS = st.builds(
    Decay,
    scale=_POSITIVE,
    origin=_NUMBERS,
    offset=st.floats(0, HUGE),
    decay=st.floats(1e-6, 1 - 1e-6),
    shape=st.sampled_from(DecayShape),
)


@given(decay=_DECAYS, near=_NUMBERS, far=_NUMBERS)
def test_decay_is_a_share_and_falls_with_the_distance(
    decay: Decay, near: float, far: float
) -> None:
    assert decay.origin is not None
    boost = Boost(field="n", decay=decay)
    first, second = boost_values(boost, [near, far])
    assert 0 <= first <= 1 and float(np.float32(first)) == first
    if abs(float(near) - float(decay.origin)) <= abs(float(far) - float(decay.origin)):  # type: ignore[arg-type]
        assert first >= second
    assert value(boost, [near, far]) == max(first, second)
    assert value(boost, [near]) == first


@given(shape=st.sampled_from(["pivot", "top"]), size=_POSITIVE, low=_NUMBERS, high=_NUMBERS)
def test_growth_is_a_share_and_grows(shape: str, size: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    first, second = boost_values(growing(**{shape: size}), [low, high])
    assert 0 <= first <= second <= 1
    assert not math.isnan(first)
