"""Origin and filter of a surface in a policy file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import SettingsError
from nearline.filters import All, Equals, Not, Range
from retrieval.recommend.policies import BY_ITEM, Origin, Policy, SeenRule, filter_digest
from retrieval.recommend.policy_file import read_policies


def policy(folder: Path, text: str) -> Policy:
    """Reads the policy of a surface that has these lines."""
    path = folder / "policies.toml"
    path.write_text(f"version = 2\n[surfaces.rail]\n{text}\n", "utf-8")
    return read_policies(path).for_surface("rail")


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        policy(folder, text)
    return str(error.value)


def test_origin_and_filter_of_a_surface_are_read(tmp_path: Path) -> None:
    for origin in (Origin.AUTO, Origin.POPULAR, Origin.TRENDING):
        found = policy(tmp_path, f'from = "{origin.value}"')
        assert found == Policy(name="rail", version=2, origin=origin, seen=BY_ITEM)
    only = "in_stock = true AND NOT price > 100"
    found = policy(tmp_path, f"only = '{only}'")
    assert found.only == All(Equals("in_stock", True), Not(Range("price", gt=100)))
    as_json = policy(tmp_path, """only = '{"field": "in_stock", "equals": true}'""")
    assert as_json.only == Equals("in_stock", True)


def test_an_error_names_surface_place_and_remedy(tmp_path: Path) -> None:
    said = error_of(tmp_path, 'from = "trendy"')
    assert "surfaces.rail.from is a string, 'trendy'; 'auto' or 'popular' or 'trending' or" in said
    said = error_of(tmp_path, 'only = "in_stock = true AND"')
    assert "surfaces.rail.only: " in said and "column 20" in said
    assert "surfaces.rail.only: " in error_of(tmp_path, "only = '{\"field\": 3}'")
    assert "surfaces.rail.only is a boolean, True; a filter is required as" in error_of(
        tmp_path, "only = true"
    )
    assert "surfaces.rail.form is unknown; use one of 'from'" in error_of(tmp_path, 'form = "x"')


def test_buy_again_hides_seen_items_only_for_a_time(tmp_path: Path) -> None:
    again = 'from = "buy_again"'
    assert policy(tmp_path, again).seen == SeenRule(repeat=True)
    week = SeenRule(days=7)
    assert policy(tmp_path, f"{again}\nseen_days = 7").seen == week
    assert policy(tmp_path, f'{again}\nseen_days = 7\nseen = "exclude"').seen == week
    kinds = policy(tmp_path, f'{again}\nseen_kinds = ["return"]').seen
    assert kinds == SeenRule(kinds=frozenset({"return"}))
    said = error_of(tmp_path, f'{again}\nseen = "exclude"')
    assert "surfaces.rail.seen" in said and "hides all of them; omit `seen`" in said


def test_a_discount_for_popularity_is_read_and_refused_where_it_has_no_effect(
    tmp_path: Path,
) -> None:
    assert policy(tmp_path, "").popularity_debias is None
    assert policy(tmp_path, "popularity_debias = 0").popularity_debias == 0
    assert policy(tmp_path, "popularity_debias = 0.25").popularity_debias == 0.25
    said = error_of(tmp_path, "popularity_debias = 1.5")
    assert "surfaces.rail.popularity_debias is a number, 1.5; a number in 0..1 is allowed" in said
    said = error_of(tmp_path, 'from = "trending"\npopularity_debias = 0.5')
    assert 'lists from "trending" are not discounted; omit it, or omit `from`' in said


def test_a_policy_without_these_keys_keeps_the_digest_it_had(tmp_path: Path) -> None:
    plain = policy(tmp_path, "")
    assert policy(tmp_path, 'from = "auto"').digest == plain.digest
    others = [
        policy(tmp_path, text).digest
        for text in (
            *('from = "popular"', 'from = "trending"', 'from = "buy_again"'),
            *("popularity_debias = 0", "popularity_debias = 0.5"),
            *('only = "a = 1"', 'only = "a = 2"', 'only = "b = 1"'),
        )
    ]
    assert len({plain.digest, *others}) == len(others) + 1
    spaced = policy(tmp_path, 'only = "a   =   1"')
    assert spaced.digest == policy(tmp_path, 'only = "a = 1"').digest


def test_filters_have_different_digests() -> None:
    requested, only = Equals("a", 1), Equals("b", 2)
    assert filter_digest(None) == ""
    assert len({filter_digest(one) for one in (requested, only, All(requested, only))}) == 3


def test_a_policy_that_says_nothing_about_items_the_user_had_decides_by_item(
    tmp_path: Path,
) -> None:
    assert policy(tmp_path, "").seen == policy(tmp_path, 'seen = "auto"').seen == BY_ITEM
    # What it says is authoritative.
    assert policy(tmp_path, 'seen = "exclude"').seen == SeenRule()
    assert policy(tmp_path, 'seen = "repeat"').seen == SeenRule(repeat=True)
    assert policy(tmp_path, "seen_days = 9").seen == SeenRule(days=9)
    assert policy(tmp_path, 'seen_kinds = ["cart"]').seen == SeenRule(kinds=frozenset({"cart"}))
    assert "'exclude' or 'repeat' is" in error_of(tmp_path, 'seen_days = 9\nseen = "auto"')
