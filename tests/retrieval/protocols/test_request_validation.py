"""Requests for lists with values at and beyond the end of their ranges."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.protocols.request_validation import check_list_request

HOME = c.Audience()
PLAIN = c.RecommendOptions()
LONG_ID = "ü" * (c.MAX_ID_BYTES // 2)
MANY = tuple(str(number) for number in range(c.MAX_EXCLUDED + 1))


@pytest.mark.parametrize(
    ("audience", "options"),
    [
        (HOME, PLAIN),
        (HOME, c.RecommendOptions(n=1)),
        (HOME, c.RecommendOptions(n=c.MAX_RECOMMENDED)),
        (HOME, c.RecommendOptions(diversity=0.0)),
        (HOME, c.RecommendOptions(diversity=1.0)),
        (HOME, c.RecommendOptions(exclude_ids=MANY[1:])),
        (c.Audience(item_ids=MANY[: c.MAX_EXAMPLES]), PLAIN),
        (c.Audience(user_id=LONG_ID), PLAIN),
        (c.Audience(session_id=LONG_ID), PLAIN),
    ],
)
def test_the_ends_of_each_range_are_allowed(
    audience: c.Audience, options: c.RecommendOptions
) -> None:
    check_list_request(audience, options)


@pytest.mark.parametrize(
    ("audience", "options", "field"),
    [
        (HOME, c.RecommendOptions(n=0), "n"),
        (HOME, c.RecommendOptions(n=c.MAX_RECOMMENDED + 1), "n"),
        (HOME, c.RecommendOptions(diversity=-0.01), "diversity"),
        (HOME, c.RecommendOptions(diversity=1.01), "diversity"),
        (HOME, c.RecommendOptions(diversity=float("nan")), "diversity"),
        (HOME, c.RecommendOptions(exclude_ids=MANY), "exclude_ids"),
        (HOME, c.RecommendOptions(exclude_ids=("a", "")), "exclude_ids"),
        (c.Audience(item_ids=MANY[: c.MAX_EXAMPLES + 1]), PLAIN, "item_ids"),
        (c.Audience(item_ids=("a", "")), PLAIN, "item_ids"),
        (c.Audience(user_id=f"{LONG_ID}u"), PLAIN, "user_id"),
        (c.Audience(session_id=f"{LONG_ID}u"), PLAIN, "session_id"),
    ],
)
def test_values_beyond_each_range_are_refused_with_their_field(
    audience: c.Audience, options: c.RecommendOptions, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_list_request(audience, options)
    assert refused.value.field == field
