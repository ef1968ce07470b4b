"""Shapes of filters: few, and independent of values and order."""

from __future__ import annotations

import pytest

from nearline.filters import All, Any, Equals, Exists, Filter, In, Not, Range
from retrieval.monitoring.filter_shape import filter_shape

EQ, IN, RANGE, EXISTS = Equals("a", 1), In("a", (1, 2)), Range("a", gte=1), Exists("a")


@pytest.mark.parametrize(
    ("condition", "shape"),
    [
        (None, "none"),
        (EQ, "eq"),
        (IN, "in"),
        (RANGE, "range"),
        (EXISTS, "exists"),
        (Not(EQ), "not(eq)"),
        (All(RANGE, EQ), "and(eq,range)"),
        (All(EQ, RANGE, Equals("b", "x")), "and(eq,range)"),
        (Any(EQ, Not(IN)), "or(eq,not)"),
        (All(), "and()"),
        (All(EQ, IN, RANGE, EXISTS, Not(EQ)), "and(many)"),
    ],
)
def test_the_shape_of_a_filter(condition: Filter | None, shape: str) -> None:
    assert filter_shape(condition) == shape


def test_depth_makes_no_further_shapes() -> None:
    deep: Filter = EQ
    for _ in range(15):
        deep = All(EQ, Any(deep, IN))
    assert filter_shape(deep) == "and(eq,or)"
