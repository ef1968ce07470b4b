"""What a surface is made from, and only may show, as a policy file says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.errors import SettingsError
from nearline.filters import All, Equals, Not, Range
from retrieval.recommend.list_builder import merge_filters
from retrieval.recommend.policies import Origin, Policy, SeenRule, filter_digest
from retrieval.recommend.policy_file import read_policies


def policy(folder: Path, text: str) -> Policy:
    """Reads the policy of a surface that has these lines."""
    path = folder / "policies.toml"
    path.write_text(f"version = 2\n[surfaces.rail]\n{text}\n", "utf-8")
    return read_policies(path).of("rail")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        policy(folder, text)
    return str(error.value)


def test_what_a_surface_is_made_from_and_only_shows(tmp_path: Path) -> None:
    for origin in (Origin.AUTO, Origin.POPULAR, Origin.TRENDING):
        found = policy(tmp_path, f'from = "{origin.value}"')
        assert found == Policy(name="rail", version=2, origin=origin)
    only = "in_stock = true AND NOT price > 100"
    found = policy(tmp_path, f"only = '{only}'")
    assert found.only == All(Equals("in_stock", True), Not(Range("price", gt=100)))
    as_json = policy(tmp_path, """only = '{"field": "in_stock", "equals": true}'""")
    assert as_json.only == Equals("in_stock", True)


def test_a_mistake_names_surface_place_and_remedy(tmp_path: Path) -> None:
    said = refused(tmp_path, 'from = "trendy"')
    assert "surfaces.rail.from is a text, 'trendy'; 'auto' or 'popular' or 'trending' or" in said
    said = refused(tmp_path, 'only = "in_stock = true AND"')
    assert "surfaces.rail.only: " in said and "column 20" in said
    assert "surfaces.rail.only: " in refused(tmp_path, "only = '{\"field\": 3}'")
    assert "surfaces.rail.only is a truth value, True; a filter as text" in refused(
        tmp_path, "only = true"
    )
    assert "surfaces.rail.form is not known; known here: 'from'" in refused(tmp_path, 'form = "x"')


def test_what_is_bought_again_is_not_left_out_as_seen_but_for_a_while(tmp_path: Path) -> None:
    again = 'from = "buy_again"'
    assert policy(tmp_path, again).seen == SeenRule(repeat=True)
    week = SeenRule(days=7)
    assert policy(tmp_path, f"{again}\nseen_days = 7").seen == week
    assert policy(tmp_path, f'{again}\nseen_days = 7\nseen = "exclude"').seen == week
    kinds = policy(tmp_path, f'{again}\nseen_kinds = ["return"]').seen
    assert kinds == SeenRule(kinds=frozenset({"return"}))
    said = refused(tmp_path, f'{again}\nseen = "exclude"')
    assert "surfaces.rail.seen" in said and "leaves all of it out; leave `seen` out" in said


def test_a_policy_without_these_keys_keeps_the_digest_it_had(tmp_path: Path) -> None:
    plain = policy(tmp_path, "")
    assert policy(tmp_path, 'from = "auto"').digest == plain.digest
    others = [
        policy(tmp_path, text).digest
        for text in (
            *('from = "popular"', 'from = "trending"', 'from = "buy_again"'),
            *('only = "a = 1"', 'only = "a = 2"', 'only = "b = 1"'),
        )
    ]
    assert len({plain.digest, *others}) == len(others) + 1
    spaced = policy(tmp_path, 'only = "a   =   1"')
    assert spaced.digest == policy(tmp_path, 'only = "a = 1"').digest


def test_both_filters_hold() -> None:
    asked, only = Equals("a", 1), Equals("b", 2)
    assert merge_filters(None, None) is None
    assert merge_filters(asked, None) is asked and merge_filters(None, only) is only
    assert merge_filters(asked, only) == All(asked, only)
    assert filter_digest(None) == ""
    assert len({filter_digest(one) for one in (asked, only, All(asked, only))}) == 3
