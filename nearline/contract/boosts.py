"""Boosts: how attributes of items change their scores."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from nearline.contract.terms import Converted, Scalar

MAX_BOOSTS: Final = 16
MAX_BOOST_VALUES: Final = 256
MAX_BOOST_WEIGHT: Final = 10.0
# Candidates whose scores are changed, and the most hits of a search with boosts.
MAX_BOOSTED: Final = 500


class DecayShape(Enum):
    """How a value falls; see BoostDecay in retrieval.proto."""

    GAUSS = "gauss"
    EXP = "exp"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A value that grows with a number x > 0: x / (x + pivot), or ln(1 + x) / ln(1 + top)."""

    pivot: float | None = None
    top: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """A value that falls with the distance from an origin: to `decay` at offset + scale.

    scale, offset: Seconds for times, else in the unit of the attribute. origin: A time or a number;
    None is now, for numbers in seconds since 1970.
    """

    scale: float
    origin: Scalar = None
    offset: float = 0.0
    decay: float = 0.5
    shape: Converted[DecayShape, DecayShape | str] = DecayShape.GAUSS  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """How an attribute changes scores; see Boost in retrieval.proto.

    field: Name of the attribute. weight: -10..10. One of the others is set: any_of, 1..256 values
    of which the attribute is one; growth; decay.
    """

    field: str
    weight: float = 1.0
    any_of: tuple[Scalar, ...] = ()
    growth: Growth | None = None
    decay: Decay | None = None
