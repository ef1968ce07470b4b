"""Weights of the searchable fields are checked, read and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from nearline.errors import InvalidRequest
from nearline.items.search_weights import check_search_weights, parse_search_weight, shown_weights

KINDS = {"genres": "string[]", "brand": "string", "price": "double", "title": "int"}


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"title": 2, "text": 0.1, "genres": 0.5, "brand": 100},
        # Items may have attributes that nobody declared; and a title is no attribute.
        {"undeclared": 1},
        {f"a{number}": 1 for number in range(32)},
        {"a" * 256: 1},
    ],
)
def test_titles_texts_and_attributes_of_texts_have_weights(weights: Mapping[str, float]) -> None:
    check_search_weights(weights, KINDS)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"brand": 0}, "weight of 'brand' is 0; 0.001 to 100 is allowed: leave out"),
        ({"title": 0}, "weight of 'title' is 0; 0.001 to 100 is allowed$"),
        ({"brand": -1}, "is -1; 0.001 to 100"),
        ({"brand": 100.5}, "is 100.5; 0.001 to 100"),
        ({"brand": math.nan}, "is nan; 0.001 to 100"),
        ({"brand": math.inf}, "is inf; 0.001 to 100"),
        ({"": 1}, "weight is for ''; use title, text, or the name of an attribute"),
        ({"a" * 257: 1}, "which has 1..256 characters"),
        ({"price": 1}, "'price' has a search weight, but is declared of kind double; only texts"),
        ({f"a{number}": 1 for number in range(33)}, "33 fields have a search weight; at most 32"),
    ],
)
def test_what_cannot_be_searched_is_named(weights: Mapping[str, float], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        check_search_weights(weights, KINDS)
    assert refused.value.field == "search_weights"


def test_weights_are_read_as_they_are_shown() -> None:
    weights = {"genres": 0.5, "a=b": 3.0, "text": 1.0, "title": 2.0}
    shown = shown_weights(weights)
    assert shown == "title=2, text=1, a=b=3, genres=0.5"
    assert dict(map(parse_search_weight, shown.split(","))) == weights


@pytest.mark.parametrize("text", ["genres", "genres=", "genres=many", "="])
def test_a_weight_of_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not FIELD=WEIGHT, for example title=2"):
        parse_search_weight(text)
