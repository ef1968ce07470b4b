"""Languages of searchable attributes are checked, read and shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nearline.errors import InvalidRequest
from nearline.items.search_languages import (
    check_search_languages,
    parse_search_language,
    shown_languages,
)

WEIGHTS = {"title": 2.0, "brand": 1.0, "tags": 0.5}
KNOWN = ("none", "english", "german")


@pytest.mark.parametrize(
    "languages", [{}, {"brand": "none"}, {"brand": "english", "tags": "german"}]
)
def test_attributes_with_a_weight_have_languages(languages: Mapping[str, str]) -> None:
    check_search_languages(languages, WEIGHTS, KNOWN)
    check_search_languages(languages, None, KNOWN)


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ({"title": "none"}, "'title' has a search language, but title and text have .*; set that"),
        ({"text": "german"}, "'text' has a search language, but title and text have"),
        (
            {"brand": "klingon"},
            "language of 'brand' is 'klingon'; use one of none, english, german",
        ),
        ({"brand": ""}, "language of 'brand' is ''; use one of"),
        ({"brand": "German"}, "is 'German'; use one of"),
        ({"brand": None}, "is None; use one of"),
        ({"brand": ["none"]}, r"is \['none'\]; use one of"),
        ({7: "none"}, "attribute 7 has a search language, but no search weight"),
        ({"": "none"}, "attribute '' has a search language, but no search weight"),
        (
            {"genre": "none"},
            "'genre' has a search language, but no search weight.*give it a weight",
        ),
        ({f"a{number}": "none" for number in range(33)}, "33 fields have a search language; at"),
        ({f"a{number}": "none" for number in range(1_000)}, "1000 fields have a search language"),
    ],
)
def test_what_can_have_no_language_is_named(languages: Mapping[Any, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        check_search_languages(languages, WEIGHTS, KNOWN)
    assert refused.value.field == "search_languages"
    assert len(str(refused.value)) < 600


def test_long_names_and_languages_are_cut_in_errors() -> None:
    for languages in ({"x" * 100_000: "none"}, {"brand": "y" * 100_000}):
        with pytest.raises(InvalidRequest) as refused:
            check_search_languages(languages, WEIGHTS, KNOWN)
        assert len(str(refused.value)) < 600


def test_languages_are_read_as_they_are_shown() -> None:
    languages = {"tags": "german", "a=b": "none"}
    shown = shown_languages(languages)
    assert shown == "a=b=none, tags=german"
    assert dict(map(parse_search_language, shown.split(","))) == languages


@pytest.mark.parametrize("text", ["brand", "brand=", "=none", "=", "", "brand:none"])
def test_a_language_of_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not FIELD=LANGUAGE, for example brand=none"):
        parse_search_language(text)
