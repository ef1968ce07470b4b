"""Requests for lists at and beyond the end of each range, and names for misspelt ones."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.protocols.request_validation import check_list_request, closest_name, suggest_names

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
        (HOME, c.RecommendOptions(popularity_debias=0.0)),
        (HOME, c.RecommendOptions(popularity_debias=1.0)),
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
        (HOME, c.RecommendOptions(popularity_debias=-0.01), "popularity_debias"),
        (HOME, c.RecommendOptions(popularity_debias=1.01), "popularity_debias"),
        (HOME, c.RecommendOptions(popularity_debias=float("nan")), "popularity_debias"),
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


@pytest.mark.parametrize(
    ("name", "cutoff", "closest"),
    [
        ("prodcts", 0.5, "products"),
        ("zzz", 0.5, ""),
        ("zpz", 0.0, "products"),
        # A very long name is not compared.
        ("products" * 32, 0.0, "products"),
        ("products" * 32 + "x", 0.0, ""),
    ],
)
def test_the_closest_name_is_found(name: str, cutoff: float, closest: str) -> None:
    assert closest_name(name, ["products"], cutoff) == closest


@pytest.mark.parametrize(
    ("name", "known", "shown"),
    [
        ("prodcts", ["texts", "products", "books"], "'products', 'books', 'texts'"),
        ("x" * 300, ["texts", "products"], "'products', 'texts'"),
        ("prodcts", [], "none"),
    ],
)
def test_known_names_are_listed_with_the_closest_first(
    name: str, known: list[str], shown: str
) -> None:
    assert suggest_names(name, known) == shown
