"""Filters of policies that refer to the user and the request: known values count, others do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from nearline import filters as f
from nearline.contract import Attributes
from nearline.errors import InvalidRequest, SettingsError
from nearline.filter_text import parse_filter
from retrieval.recommend.policies import default_policies
from retrieval.recommend.policy_file import parse_policies
from retrieval.recommend.references import bind

KINDS = {"country": "string", "min_age": "int", "pro": "bool", "price": "double"}
COUNTRY = "country = $user.country OR NOT country EXISTS"


def bound(text: str, user: Attributes | None = None, context: Attributes | None = None) -> object:
    return bind(parse_filter(text, references=True), user or {}, context or {}, KINDS)


@pytest.mark.parametrize(
    ("text", "user", "as_if"),
    [
        (COUNTRY, {"country": "DE"}, "country = DE OR NOT country EXISTS"),
        (
            "country = $user.country AND pro = true",
            {"country": "DE"},
            "country = DE AND pro = true",
        ),
        ("country IN [$user.country, all]", {"country": "DE"}, "country = DE OR country = all"),
        ("country != $user.country", {"country": "DE"}, "country != DE"),
        ("min_age <= $user.age", {"age": 17}, "min_age <= 17"),
        ("price < $user.budget", {"budget": 3}, "price < 3"),
        ("pro = $user.pro", {"pro": False}, "pro = false"),
        # Unknown, or of a kind that the items do not have: the condition is left out.
        ("country = $user.country AND pro = true", {}, "pro = true"),
        ("country = $user.country AND pro = true", {"country": 5}, "pro = true"),
        ("NOT (country = $user.country OR pro = true)", {}, "NOT pro = true"),
        ("pro = $user.pro AND pro = true", {"pro": 1}, "pro = true"),
    ],
)
def test_a_value_stands_in_place_of_its_reference(text: str, user: Attributes, as_if: str) -> None:
    found = bound(text, user)
    assert isinstance(found, f.All | f.Any | f.Not | f.Equals | f.Range)
    for country in (None, "DE", "FR", "all"):
        for pro in (None, True, False):
            for number in (None, 3, 17, 18):
                item = {"country": country, "pro": pro, "min_age": number, "price": number}
                assert f.admits(found, item) == f.admits(parse_filter(as_if), item)


@pytest.mark.parametrize(
    "text",
    [
        COUNTRY,
        "country != $user.country",
        "country IN [$user.country, all]",
        "min_age <= $user.age",
        "country = $request.country",
    ],
)
@pytest.mark.parametrize("user", [{}, {"other": 1}, {"country": 7, "age": "old"}])
def test_unknown_attributes_leave_the_whole_rule_out(text: str, user: Attributes) -> None:
    assert bound(text, user) is None


def test_a_request_has_attributes_of_its_own() -> None:
    known = {"country": "DE"}, {"country": "FR"}
    assert bound("country = $request.country", *known) == f.Equals("country", "FR")
    assert bound("country = $user.country", *known) == f.Equals("country", "DE")


_leaves = st.builds(
    f.Equals,
    st.sampled_from("ab"),
    st.sampled_from([1, 2, *map(f.Reference, ("$user.x", "$user.y"))]),
)
_filters = st.recursive(
    _leaves,
    lambda part: st.lists(part, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([f.All(*parts), f.Any(*parts), f.Not(parts[0])])
    ),
    max_leaves=8,
)


def loosest(one: f.Filter, item: Mapping[str, int], user: Mapping[str, int], truth: bool) -> bool:
    """Says by the definition whether an item matches. truth: Of unknown ones."""
    match one:
        case f.All(parts):
            return all(loosest(part, item, user, truth) for part in parts)
        case f.Any(parts):
            return any(loosest(part, item, user, truth) for part in parts)
        case f.Not(part):
            return not loosest(part, item, user, not truth)
        case f.Equals(field, value):
            if isinstance(value, f.Reference):
                name = value.removeprefix("$user.")
                return item[field] == user[name] if name in user else truth
            return item[field] == value
    raise AssertionError(one)


@given(_filters, st.dictionaries(st.sampled_from("xy"), st.integers(1, 2)))
def test_the_definition_decides(condition: f.Filter, user: dict[str, int]) -> None:
    found = bind(condition, user, {}, {"a": "int", "b": "int"})
    whole = bind(condition, {"x": 1, "y": 1}, {}, {})
    if whole is not None:
        f.check_filter(whole)
    for item in ({"a": a, "b": b} for a in (1, 2) for b in (1, 2)):
        assert (found is None or f.admits(found, item)) == loosest(condition, item, user, True)


def test_quoted_texts_are_no_references() -> None:
    condition = parse_filter('country = "$user.country"')
    assert bind(condition, {"country": "DE"}, {}, KINDS) == condition


@pytest.mark.parametrize("word", ["$usr.country", "$user.", "$user", "$5"])
def test_a_misspelt_reference_is_an_error_with_its_column(word: str) -> None:
    with pytest.raises(InvalidRequest, match=r"column 11: .* is not \$user.NAME or \$request.NAME"):
        parse_filter(f"country = {word}", references=True)
    toml = f"version = 1\n[surfaces.home]\nonly = 'country = {word}'"
    with pytest.raises(SettingsError, match=r"surfaces.home.only: .*quote texts"):
        parse_policies(toml, default_policies())


@pytest.mark.parametrize("value", ["= $user.country", "IN [$request.country, DE]", "= $5"])
def test_requests_have_no_references_so_that_none_is_taken_for_a_text(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\$.* in a policy; quote texts"):
        parse_filter(f"NOT country {value}")


@pytest.mark.parametrize("text", ["$user.country = country", "NOT $user.age EXISTS"])
def test_a_reference_does_not_stand_in_place_of_an_attribute(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"an attribute, NOT or \( is expected, found '\$user"):
        parse_filter(text, references=True)
