"""Values of boosts: how much an attribute of an item speaks for it, 0..1.

Source: the decay functions of Elasticsearch's function_score, and the saturation of its
rank_feature; see Boost in retrieval.proto.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from nearline.contract import AttributeValue, Boost, Decay, DecayShape, Growth, Scalar
from nearline.filters import In, admits


def boost_values(boost: Boost, attributes: Sequence[AttributeValue]) -> list[float]:
    """Returns the value of a boost for each value of its attribute, as float32.

    Shards return them as such, so that all round alike.

    Args:
        boost: A valid boost whose decay has an origin.
        attributes: The value of the attribute in each item; None where there is none.
    """
    exact = np.array([_value(boost, one) for one in attributes], np.float64)
    found: list[float] = exact.astype(np.float32).tolist()
    return found


def _value(boost: Boost, attribute: AttributeValue) -> float:
    if boost.any_of:
        return float(admits(In(boost.field, boost.any_of), {boost.field: attribute}))  # type: ignore[arg-type]
    elements = attribute if isinstance(attribute, list | tuple) else (attribute,)
    return max((_of_element(boost, one) for one in elements if one is not None), default=0.0)


def _of_element(boost: Boost, value: Scalar) -> float:
    if boost.growth is not None:
        return _growth(boost.growth, value)
    assert boost.decay is not None
    return _decay(boost.decay, value)


def _growth(growth: Growth, value: Scalar) -> float:
    # Live items may have values of another kind, which do not count.
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        return 0.0
    number = float(value)  # type: ignore[arg-type]
    if growth.pivot is not None:
        # For numbers whose sum would be infinite, too.
        return 1 / (1 + growth.pivot / number)
    assert growth.top is not None
    return min(1.0, math.log1p(number) / math.log1p(growth.top))


def _decay(decay: Decay, value: Scalar) -> float:
    origin = decay.origin
    if isinstance(value, datetime) and isinstance(origin, datetime):
        distance = abs((value - origin).total_seconds())
    elif _is_number(value) and _is_number(origin):
        distance = abs(float(value) - float(origin))  # type: ignore[arg-type]
    else:
        return 0.0
    x = max(0.0, distance - decay.offset) / decay.scale
    match decay.shape:
        case DecayShape.GAUSS:
            return float(decay.decay ** (x * x))
        case DecayShape.EXP:
            return float(decay.decay**x)
        case DecayShape.LINEAR:
            return max(0.0, 1 - (1 - decay.decay) * x)


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
